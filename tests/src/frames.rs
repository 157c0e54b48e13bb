//! Frame operations and the same in SQL, for the suites that compare them: on one node, in one process, over several.

use std::path::Path;

use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use windrow::frame::functions::{
    self, array_agg, avg, coalesce, count, count_distinct, first_value, lower, max, min, nested, round, stddev, sum, window,
};
use windrow::frame::{
    DataFrame, ExprFunctionExt, Join, JoinKind, Keep, Pivot, ScalarValue, Unpivot, WindowFrame, WindowFrameBound,
    WindowFrameUnits, col, left, lit, over, right, when,
};
use windrow::{Result, Session};

use crate::oracle;
use crate::rows::Answer;

/// The tables of the corpus that the cases read.
pub const TABLES: [&str; 7] = ["events", "users", "lefts", "rights", "nums", "nulls", "nested"];

/// A frame of each table.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the frame of the table of its name")]
pub struct Tables {
    pub events: DataFrame,
    pub users: DataFrame,
    pub lefts: DataFrame,
    pub rights: DataFrame,
    pub nums: DataFrame,
    pub nulls: DataFrame,
    pub nested: DataFrame,
}

impl Tables {
    /// The tables below `folder` in `session`; without rows if `empty`, which no planner can know.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn open(session: &Session, folder: &Path, empty: bool) -> Result<Self> {
        let open = async |name: &str| {
            let location = folder.join(name);
            let sql = format!("CREATE OR REPLACE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}/'", location.display());
            session.sql(&sql).await?.collect().await?;
            let table = session.table(name).await?;
            if empty { table.filter(functions::random().lt(lit(-1.0))) } else { Ok(table) }
        };
        Ok(Self {
            events: open("events").await?,
            users: open("users").await?,
            lefts: open("lefts").await?,
            rights: open("rights").await?,
            nums: open("nums").await?,
            nulls: open("nulls").await?,
            nested: open("nested").await?,
        })
    }
}

/// The same tables on one node.
///
/// # Errors
/// DataFusion's own.
pub async fn oracle(folder: &Path, empty: bool) -> datafusion::error::Result<SessionContext> {
    let full = oracle::over(folder, &TABLES).await?;
    if !empty {
        return Ok(full);
    }
    for table in TABLES {
        let view = format!("CREATE VIEW empty_{table} AS SELECT * FROM {table} WHERE random() < -1");
        full.sql(&view).await?.collect().await?;
    }
    Ok(full)
}

/// A frame and the same in SQL.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The query, in which `{events}` is the table of the events.
    pub sql: &'static str,
    /// The frame.
    pub frame: fn(&Tables) -> Result<DataFrame>,
    /// Whether the rows have an order.
    pub ordered: bool,
}

impl Case {
    /// What differs between the frame's rows and those of the query on one node, in words.
    pub async fn difference(&self, tables: &Tables, oracle: &SessionContext, empty: bool) -> Option<String> {
        let prefix = if empty { "empty_" } else { "" };
        let sql = TABLES
            .iter()
            .fold(self.sql.to_owned(), |sql, table| sql.replace(&format!("{{{table}}}"), &format!("{prefix}{table}")));
        let (schema, batches) = match oracle::run(oracle, &sql).await {
            Ok(answer) => answer,
            Err(error) => return Some(format!("{}: the oracle fails: {error}", self.name)),
        };
        let expected = Answer::new(&schema, &batches);
        let found = match (self.frame)(tables) {
            Ok(frame) => rows(&frame).await,
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return Some(format!("{}: {:?}: {error}", self.name, error.kind)),
        };
        let difference = if self.ordered { found.difference(&expected) } else { found.sorted().difference(&expected.sorted()) };
        difference.map(|difference| format!("{}: {difference}", self.name))
    }
}

/// The rows of a frame, which must be of the columns that it says it has.
///
/// # Errors
/// The engine's own.
pub async fn rows(frame: &DataFrame) -> Result<Answer> {
    let query = frame.query().await?;
    let schema = query.schema();
    let answer = Answer::new(&schema, &query.collect().await?);
    // On the wire, what is announced has the types that drivers know.
    if frame.session().url().is_none() {
        let announced = Answer::new(&frame.schema(), &[]);
        assert_eq!(answer.columns, announced.columns, "the frame announces other columns than it has");
    }
    Ok(answer)
}

const fn case(name: &'static str, sql: &'static str, frame: fn(&Tables) -> Result<DataFrame>) -> Case {
    Case { name, sql, frame, ordered: false }
}

const fn ordered(name: &'static str, sql: &'static str, frame: fn(&Tables) -> Result<DataFrame>) -> Case {
    Case { name, sql, frame, ordered: true }
}

fn on(kind: JoinKind, here: &str, there: &str) -> Join {
    Join { kind, on: vec![(here.to_owned(), there.to_owned())], ..Join::default() }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [columns(), order(), groups(), windows(), joins(), sets(), nested_columns(), together()].concat()
}

fn columns() -> Vec<Case> {
    vec![
        case("a table", "SELECT * FROM {events}", |t| Ok(t.events.clone())),
        case("select", "SELECT id, v * 2 AS double FROM {events}", |t| {
            t.events.select(vec![col("id"), (col("v") * lit(2_i64)).alias("double")])
        }),
        case("select an expression without a name", "SELECT id + k AS \"id + k\" FROM {events}", |t| {
            t.events.select(vec![col("id") + col("k")])
        }),
        case(
            "with_columns replaces and adds",
            "SELECT id, k + 1 AS k, grp, k * 10 AS ten FROM (SELECT id, k, grp FROM {events})",
            |t| {
                let few = t.events.select(vec![col("id"), col("k"), col("grp")])?;
                few.with_columns(vec![(col("k") * lit(10_i64)).alias("ten"), (col("k") + lit(1_i64)).alias("k")])
            },
        ),
        case("drop", "SELECT id, k, grp, v, amount FROM {events}", |t| t.events.drop_columns(&["day", "ts", "ok", "name"])),
        case("rename to upper case", "SELECT uk AS \"UK\", uname, city AS \"uk\", score FROM {users}", |t| {
            t.users.rename(&[("uk", "UK"), ("city", "uk")])
        }),
        case("exact names", "SELECT \"Fare per.Mile\" + 1 AS \"A b\" FROM (SELECT v AS \"Fare per.Mile\" FROM {events})", |t| {
            let odd = t.events.select(vec![col("v").alias("Fare per.Mile")])?;
            odd.select(vec![(col("Fare per.Mile") + lit(1_i64)).alias("A b")])
        }),
        case("cast", "SELECT uk::BIGINT AS uk, uname, city, score::DOUBLE AS score FROM {users}", |t| {
            t.users.cast(&[("uk", DataType::Int64), ("score", DataType::Float64)])
        }),
        case("when", "SELECT CASE WHEN v > 0 THEN 'up' WHEN v < 0 THEN 'down' ELSE 'none' END AS way FROM {events}", |t| {
            let way = when(col("v").gt(lit(0_i64)), lit("up")).when(col("v").lt(lit(0_i64)), lit("down")).otherwise(lit("none"));
            t.events.select(vec![way.map_err(|error| windrow::Error::internal(error.to_string()))?.alias("way")])
        }),
        case("functions", "SELECT lower(name) AS l, round(v, 1) AS r, coalesce(grp, 'none') AS g FROM {events}", |t| {
            t.events.select(vec![
                lower(col("name")).alias("l"),
                round(vec![col("v"), lit(1_i64)]).alias("r"),
                coalesce(vec![col("grp"), lit("none")]).alias("g"),
            ])
        }),
        case(
            "fill_null numbers",
            "SELECT coalesce(uk, 0::INT) AS uk, uname, city, coalesce(score, 0) AS score FROM {users}",
            |t| t.users.fill_null(lit(0_i64), None),
        ),
        case("fill_null a text", "SELECT uk, uname, coalesce(city, '?') AS city, score FROM {users}", |t| {
            t.users.fill_null(lit("?"), Some(&strings(&["city"])))
        }),
        case("fill_null with a column", "SELECT coalesce(k, id::INT) AS k, id FROM {events}", |t| {
            t.events.select(vec![col("k"), col("id")])?.fill_null(col("id"), Some(&strings(&["k"])))
        }),
        case(
            "a projection over a projection of the same name",
            "SELECT k + 1 AS k FROM (SELECT k * 2 AS k FROM {events})",
            |t| t.events.select(vec![(col("k") * lit(2_i64)).alias("k")])?.select(vec![(col("k") + lit(1_i64)).alias("k")]),
        ),
        case("a name that was something else before", "SELECT k + 1 AS y, id + 1 AS x FROM {events}", |t| {
            let swapped = t.events.select(vec![col("id").alias("k"), col("k").alias("id"), col("k") + lit(1_i64)])?;
            swapped.select(vec![(col("id") + lit(1_i64)).alias("y"), (col("k") + lit(1_i64)).alias("x")])
        }),
    ]
}

fn order() -> Vec<Case> {
    vec![
        case("filter", "SELECT * FROM {events} WHERE v > 10 AND grp IN ('a', 'c')", |t| {
            t.events.filter(col("v").gt(lit(10_i64)).and(col("grp").in_list(vec![lit("a"), lit("c")], false)))
        }),
        case("filter twice", "SELECT id FROM {events} WHERE v > 10 AND k BETWEEN 5 AND 20", |t| {
            t.events.filter(col("v").gt(lit(10_i64)))?.filter(col("k").between(lit(5_i64), lit(20_i64)))?.select(vec![col("id")])
        }),
        case("filter by an aggregate of all rows", "SELECT * FROM {nums} WHERE x > (SELECT avg(x) FROM {nums})", |t| {
            t.nums.filter(col("x").gt(avg(col("x"))))
        }),
        case("drop_nulls", "SELECT * FROM {lefts} WHERE a IS NOT NULL AND b IS NOT NULL", |t| t.lefts.drop_nulls(None)),
        case("drop_nulls of a column", "SELECT * FROM {lefts} WHERE b IS NOT NULL", |t| {
            t.lefts.drop_nulls(Some(&strings(&["b"])))
        }),
        ordered("sort", "SELECT id, v FROM {events} ORDER BY v DESC NULLS LAST, id", |t| {
            let sorted = t.events.sort(vec![col("v").sort(false, false), col("id").sort(true, true)])?;
            sorted.select(vec![col("id"), col("v")])
        }),
        ordered("sort with nulls first", "SELECT grp, id FROM {events} ORDER BY grp ASC NULLS FIRST, id DESC", |t| {
            t.events.select(vec![col("grp"), col("id")])?.sort(vec![col("grp").sort(true, true), col("id").sort(false, true)])
        }),
        ordered("sort by an expression", "SELECT id FROM {events} ORDER BY id % 7, id", |t| {
            t.events.select(vec![col("id")])?.sort(vec![(col("id") % lit(7_i64)).sort(true, false), col("id").sort(true, false)])
        }),
        ordered("top_k", "SELECT id, amount FROM {events} ORDER BY amount DESC NULLS LAST, id LIMIT 9", |t| {
            let few = t.events.select(vec![col("id"), col("amount")])?;
            few.top_k(9, vec![col("amount").sort(false, false), col("id").sort(true, false)])
        }),
        ordered("limit with an offset", "SELECT id FROM {events} ORDER BY id LIMIT 5 OFFSET 17", |t| {
            t.events.select(vec![col("id")])?.sort(vec![col("id").sort(true, false)])?.limit(17, Some(5))
        }),
        ordered("tail", "SELECT id FROM (SELECT id FROM {events} ORDER BY id DESC LIMIT 4) ORDER BY id", |t| {
            t.events.select(vec![col("id")])?.sort(vec![col("id").sort(true, false)])?.tail(4)
        }),
        case("distinct", "SELECT DISTINCT a, b FROM {lefts}", |t| {
            t.lefts.select(vec![col("a"), col("b")])?.distinct(None, Keep::Any)
        }),
        case("distinct on, the first", "SELECT DISTINCT ON (grp) grp, id FROM {events} ORDER BY grp, id", |t| {
            let few = t.events.select(vec![col("grp"), col("id")])?;
            few.distinct(Some(vec![col("grp")]), Keep::First(vec![col("id").sort(true, false)]))
        }),
        case("distinct on, the last", "SELECT grp, max(id) AS id FROM {events} GROUP BY grp", |t| {
            let few = t.events.select(vec![col("grp"), col("id")])?;
            few.distinct(Some(vec![col("grp")]), Keep::Last(vec![col("id").sort(true, false)]))
        }),
        case("distinct, none of several", "SELECT a, b FROM {lefts} GROUP BY a, b HAVING count(*) = 1", |t| {
            t.lefts.select(vec![col("a"), col("b")])?.distinct(None, Keep::None)
        }),
        ordered(
            "with_row_index",
            "SELECT (row_number() OVER (ORDER BY id))::BIGINT + 9 AS n, id FROM {events} ORDER BY id",
            |t| {
                let sorted = t.events.select(vec![col("id")])?.sort(vec![col("id").sort(true, false)])?;
                sorted.with_row_index("n", 10)
            },
        ),
    ]
}

fn groups() -> Vec<Case> {
    vec![
        case("aggregate", "SELECT grp, sum(v) AS s, count(*) AS n FROM {events} GROUP BY grp", |t| {
            t.events.aggregate(vec![col("grp")], vec![sum(col("v")).alias("s"), count(lit(1_i64)).alias("n")])
        }),
        case("aggregate without keys", "SELECT sum(v) AS s, min(day) AS first, max(day) AS last FROM {events}", |t| {
            t.events.select(vec![sum(col("v")).alias("s"), min(col("day")).alias("first"), max(col("day")).alias("last")])
        }),
        case("expressions of aggregates", "SELECT k % 5 AS five, sum(v) / count(v) + 1 AS m FROM {events} GROUP BY k % 5", |t| {
            let key = (col("k") % lit(5_i64)).alias("five");
            t.events.aggregate(vec![key], vec![(sum(col("v")) / count(col("v")) + lit(1_i64)).alias("m")])
        }),
        case("a value of keys and aggregates", "SELECT k, k + sum(id) AS both FROM {events} GROUP BY k", |t| {
            t.events.aggregate(vec![col("k")], vec![(col("k") + sum(col("id"))).alias("both")])
        }),
        case("keys alone", "SELECT grp, ok FROM {events} GROUP BY grp, ok", |t| {
            t.events.aggregate(vec![col("grp"), col("ok")], vec![])
        }),
        case("names of aggregates", "SELECT grp, avg(v) AS \"avg(v)\", min(k) AS \"min(k)\" FROM {events} GROUP BY grp", |t| {
            t.events.aggregate(vec![col("grp")], vec![avg(col("v")), min(col("k"))])
        }),
        case("count distinct", "SELECT grp, count(DISTINCT k) AS n FROM {events} GROUP BY grp", |t| {
            t.events.aggregate(vec![col("grp")], vec![count_distinct(col("k")).alias("n")])
        }),
        case("an aggregate of some rows", "SELECT grp, count(id) FILTER (WHERE v > 0) AS n FROM {events} GROUP BY grp", |t| {
            let positive = count(col("id")).filter(col("v").gt(lit(0_i64))).build();
            let positive = positive.map_err(|error| windrow::Error::internal(error.to_string()))?;
            t.events.aggregate(vec![col("grp")], vec![positive.alias("n")])
        }),
        case(
            "an aggregate with an order",
            "SELECT grp, first_value(id ORDER BY v DESC NULLS LAST, id) AS f FROM {events} GROUP BY grp",
            |t| {
                let first = first_value(col("id"), vec![col("v").sort(false, false), col("id").sort(true, false)]);
                t.events.aggregate(vec![col("grp")], vec![first.alias("f")])
            },
        ),
        case("having", "SELECT k, count(*) AS n FROM {events} GROUP BY k HAVING count(*) > 23", |t| {
            t.events.aggregate(vec![col("k")], vec![count(lit(1_i64)).alias("n")])?.filter(col("n").gt(lit(23_i64)))
        }),
        case("aggregate twice", "SELECT max(n) AS m FROM (SELECT k, count(*) AS n FROM {events} GROUP BY k)", |t| {
            t.events
                .aggregate(vec![col("k")], vec![count(lit(1_i64)).alias("n")])?
                .aggregate(vec![], vec![max(col("n")).alias("m")])
        }),
        case("deviation", "SELECT grp, round(stddev(v), 6) AS s FROM {events} GROUP BY grp", |t| {
            t.events.aggregate(vec![col("grp")], vec![round(vec![stddev(col("v")), lit(6_i64)]).alias("s")])
        }),
        case("lists", "SELECT g, array_agg(x ORDER BY x) AS xs FROM {nums} GROUP BY g", |t| {
            let sorted = array_agg(col("x")).order_by(vec![col("x").sort(true, false)]).build();
            let sorted = sorted.map_err(|error| windrow::Error::internal(error.to_string()))?;
            t.nums.aggregate(vec![col("g")], vec![sorted.alias("xs")])
        }),
        case(
            "pivot",
            "SELECT k, sum(v) FILTER (WHERE grp = 'a') AS a, sum(v) FILTER (WHERE grp = 'b') AS b, \
             sum(v) FILTER (WHERE grp IS NULL) AS none FROM {events} GROUP BY k",
            |t| {
                let value = |value: Option<&str>| ScalarValue::Utf8(value.map(str::to_owned));
                t.events.pivot(Pivot {
                    keys: vec![col("k")],
                    on: col("grp"),
                    values: vec![
                        (value(Some("a")), "a".to_owned()),
                        (value(Some("b")), "b".to_owned()),
                        (value(None), "none".to_owned()),
                    ],
                    aggregates: vec![sum(col("v"))],
                })
            },
        ),
    ]
}

fn windows() -> Vec<Case> {
    vec![
        case("row_number", "SELECT id, row_number() OVER (PARTITION BY grp ORDER BY id) AS n FROM {events}", |t| {
            let number = window::row_number().partition_by(vec![col("grp")]).order_by(vec![col("id").sort(true, false)]).build();
            let number = number.map_err(|error| windrow::Error::internal(error.to_string()))?;
            t.events.select(vec![col("id"), number.alias("n")])
        }),
        case("an aggregate beside a column", "SELECT x, avg(x) OVER () AS m FROM {nums}", |t| {
            t.nums.select(vec![col("x"), avg(col("x")).alias("m")])
        }),
        case("what is left of the average", "SELECT g, x, x - avg(x) OVER () AS d FROM {nums}", |t| {
            t.nums.with_columns(vec![(col("x") - avg(col("x"))).alias("d")])
        }),
        case("lag", "SELECT id, lag(id) OVER (ORDER BY id) AS before FROM {events}", |t| {
            let before = window::lag(col("id"), Some(1), None).order_by(vec![col("id").sort(true, false)]).build();
            let before = before.map_err(|error| windrow::Error::internal(error.to_string()))?;
            t.events.select(vec![col("id"), before.alias("before")])
        }),
        case(
            "a rolling sum",
            "SELECT id, sum(id) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM {events}",
            |t| {
                let frame = WindowFrame::new_bounds(
                    WindowFrameUnits::Rows,
                    WindowFrameBound::Preceding(ScalarValue::UInt64(Some(2))),
                    WindowFrameBound::CurrentRow,
                );
                let rolling = over(sum(col("id")), vec![], vec![col("id").sort(true, false)], Some(frame))?;
                t.events.select(vec![col("id"), rolling.alias("s")])
            },
        ),
        case(
            "two windows and a filter",
            "SELECT id, r FROM (SELECT id, rank() OVER (PARTITION BY grp ORDER BY k) AS r, \
             count(*) OVER (PARTITION BY grp) AS n FROM {events}) WHERE r < 4 AND n > 190",
            |t| {
                let rank = window::rank().partition_by(vec![col("grp")]).order_by(vec![col("k").sort(true, false)]).build();
                let rank = rank.map_err(|error| windrow::Error::internal(error.to_string()))?;
                let n = over(count(lit(1_i64)), vec![col("grp")], vec![], None)?;
                let ranked = t.events.with_columns(vec![rank.alias("r"), n.alias("n")])?;
                ranked.filter(col("r").lt(lit(4_i64)).and(col("n").gt(lit(190_i64))))?.select(vec![col("id"), col("r")])
            },
        ),
    ]
}

fn joins() -> Vec<Case> {
    vec![
        case("inner join", "SELECT e.id, e.k, u.uname FROM {events} e JOIN {users} u ON e.k = u.uk", |t| {
            let events = t.events.select(vec![col("id"), col("k")])?;
            events.join(&t.users.select(vec![col("uk"), col("uname")])?, on(JoinKind::Inner, "k", "uk"))
        }),
        case("left join", "SELECT e.id, e.k, u.uname FROM {events} e LEFT JOIN {users} u ON e.k = u.uk", |t| {
            let events = t.events.select(vec![col("id"), col("k")])?;
            events.join(&t.users.select(vec![col("uk"), col("uname")])?, on(JoinKind::Left, "k", "uk"))
        }),
        case("right join", "SELECT e.id, u.uk, u.uname FROM {events} e RIGHT JOIN {users} u ON e.k = u.uk", |t| {
            let events = t.events.select(vec![col("id"), col("k")])?;
            events.join(&t.users.select(vec![col("uk"), col("uname")])?, on(JoinKind::Right, "k", "uk"))
        }),
        case("full join", "SELECT e.id, e.k, u.uk, u.uname FROM {events} e FULL JOIN {users} u ON e.k = u.uk", |t| {
            let events = t.events.select(vec![col("id"), col("k")])?;
            events.join(&t.users.select(vec![col("uk"), col("uname")])?, on(JoinKind::Full, "k", "uk"))
        }),
        case(
            "full join of one key",
            "SELECT coalesce(e.k, u.uk) AS k, e.id, u.uname FROM {events} e FULL JOIN {users} u ON e.k = u.uk",
            |t| {
                let events = t.events.select(vec![col("k"), col("id")])?;
                let join = Join { coalesce: Some(true), ..on(JoinKind::Full, "k", "uk") };
                events.join(&t.users.select(vec![col("uk"), col("uname")])?, join)
            },
        ),
        case("semi join", "SELECT * FROM {users} WHERE uk IN (SELECT k FROM {events})", |t| {
            t.users.join(&t.events, on(JoinKind::Semi, "uk", "k"))
        }),
        case("anti join", "SELECT * FROM {users} u WHERE NOT EXISTS (SELECT 1 FROM {events} e WHERE e.k = u.uk)", |t| {
            t.users.join(&t.events, on(JoinKind::Anti, "uk", "k"))
        }),
        case(
            "cross join",
            "SELECT l.a, l.b, l.x, r.a AS a_right, r.b AS b_right, r.y FROM {lefts} l CROSS JOIN {rights} r",
            |t| t.lefts.join(&t.rights, Join { kind: JoinKind::Cross, ..Join::default() }),
        ),
        case("two keys", "SELECT l.a, l.b, l.x, r.y FROM {lefts} l JOIN {rights} r ON l.a = r.a AND l.b = r.b", |t| {
            t.lefts.join(&t.rights, Join::on(JoinKind::Inner, &["a", "b"]))
        }),
        case(
            "two keys with nulls that are equal",
            "SELECT l.a, l.b, l.x, r.y FROM {lefts} l JOIN {rights} r ON (l.a IS NOT DISTINCT FROM r.a) AND (l.b IS NOT DISTINCT FROM r.b)",
            |t| t.lefts.join(&t.rights, Join { nulls_equal: true, ..Join::on(JoinKind::Inner, &["a", "b"]) }),
        ),
        case(
            "names that are taken",
            "SELECT l.a, l.b, l.x, r.b AS \"b@r\", r.y FROM {lefts} l JOIN {rights} r ON l.a = r.a",
            |t| t.lefts.join(&t.rights, Join { suffix: "@r".to_owned(), ..Join::on(JoinKind::Inner, &["a"]) }),
        ),
        case(
            "a condition beside a key",
            "SELECT l.a, l.b, l.x, r.b AS b_right, r.y FROM {lefts} l LEFT JOIN {rights} r ON l.a = r.a AND l.x < r.y AND l.b <> r.b",
            |t| {
                let condition = col("x").lt(col("y")).and(left("b").not_eq(right("b")));
                t.lefts.join(&t.rights, Join { condition: Some(condition), ..Join::on(JoinKind::Left, &["a"]) })
            },
        ),
        case("a condition alone", "SELECT l.x, r.y FROM {lefts} l JOIN {rights} r ON l.x + r.y = 30", |t| {
            let (lefts, rights) = (t.lefts.select(vec![col("x")])?, t.rights.select(vec![col("y")])?);
            let condition = Some((col("x") + col("y")).eq(lit(30_i64)));
            lefts.join(&rights, Join { condition, ..Join::default() })
        }),
        case("a frame with itself", "SELECT a.g, a.x, b.x AS x_right FROM {nums} a JOIN {nums} b ON a.g = b.g", |t| {
            t.nums.join(&t.nums, Join::on(JoinKind::Inner, &["g"]))
        }),
        case(
            "three frames",
            "SELECT u.city, count(*) AS n FROM {events} e JOIN {users} u ON e.k = u.uk LEFT JOIN {nums} n ON u.score = n.x GROUP BY u.city",
            |t| {
                let joined =
                    t.events.join(&t.users, on(JoinKind::Inner, "k", "uk"))?.join(&t.nums, on(JoinKind::Left, "score", "x"))?;
                joined.aggregate(vec![col("city")], vec![count(lit(1_i64)).alias("n")])
            },
        ),
    ]
}

fn sets() -> Vec<Case> {
    vec![
        case("union", "SELECT a, b FROM {lefts} UNION ALL SELECT a, b FROM {rights}", |t| {
            t.lefts.drop_columns(&["x"])?.union(&t.rights.drop_columns(&["y"])?, false)
        }),
        case("union of two types", "SELECT x::BIGINT AS x FROM {lefts} UNION ALL SELECT score FROM {users}", |t| {
            t.lefts.select(vec![col("x")])?.union(&t.users.select(vec![col("score")])?, false)
        }),
        case("union by name", "SELECT a, b, x, NULL::INT AS y FROM {lefts} UNION ALL SELECT a, b, NULL, y FROM {rights}", |t| {
            t.lefts.union(&t.rights, true)
        }),
        case("union, distinct", "SELECT a FROM {lefts} UNION SELECT a FROM {rights}", |t| {
            t.lefts.select(vec![col("a")])?.union(&t.rights.select(vec![col("a")])?, false)?.distinct(None, Keep::Any)
        }),
        case("intersect", "SELECT a, b FROM {lefts} INTERSECT SELECT a, b FROM {rights}", |t| {
            t.lefts.drop_columns(&["x"])?.intersect(&t.rights.drop_columns(&["y"])?)
        }),
        case("except", "SELECT a, b FROM {lefts} EXCEPT SELECT a, b FROM {rights}", |t| {
            t.lefts.drop_columns(&["x"])?.except(&t.rights.drop_columns(&["y"])?)
        }),
    ]
}

fn nested_columns() -> Vec<Case> {
    vec![
        case("unnest a list", "SELECT id, unnest(xs) AS xs FROM {nested} WHERE array_length(xs) > 0", |t| {
            let filled = t.nested.filter(nested::array_length(col("xs")).gt(lit(0_i64)))?;
            filled.select(vec![col("id"), col("xs")])?.unnest(&strings(&["xs"]))
        }),
        case(
            "unnest two lists",
            "SELECT id, unnest(xs) AS xs, unnest(words) AS words FROM {nested} WHERE array_length(words) > 0",
            |t| {
                let filled = t.nested.filter(nested::array_length(col("words")).gt(lit(0_i64)))?;
                filled.select(vec![col("id"), col("xs"), col("words")])?.unnest(&strings(&["xs", "words"]))
            },
        ),
        case("unnest a struct", "SELECT id, point['x'] AS x, point['label'] AS label FROM {nested}", |t| {
            t.nested.select(vec![col("id"), col("point")])?.unnest(&strings(&["point"]))
        }),
        case(
            "unpivot",
            "SELECT uname, 'uk' AS variable, uk::BIGINT AS value FROM {users} UNION ALL SELECT uname, 'score', score FROM {users}",
            |t| {
                let unpivot = Unpivot { index: strings(&["uname"]), on: strings(&["uk", "score"]), ..Unpivot::default() };
                t.users.unpivot(unpivot)
            },
        ),
    ]
}

fn together() -> Vec<Case> {
    vec![
        ordered(
            "many steps",
            "SELECT u.city, count(*) AS n, sum(e.v) AS s FROM {events} e JOIN {users} u ON e.k = u.uk \
             WHERE e.v IS NOT NULL AND u.city IS NOT NULL GROUP BY u.city HAVING count(*) > 10 ORDER BY n DESC, u.city LIMIT 3",
            |t| {
                let joined = t.events.drop_nulls(Some(&strings(&["v"])))?.join(&t.users, on(JoinKind::Inner, "k", "uk"))?;
                let by_city = joined.drop_nulls(Some(&strings(&["city"])))?;
                let by_city =
                    by_city.aggregate(vec![col("city")], vec![count(lit(1_i64)).alias("n"), sum(col("v")).alias("s")])?;
                by_city
                    .filter(col("n").gt(lit(10_i64)))?
                    .top_k(3, vec![col("n").sort(false, true), col("city").sort(true, false)])
            },
        ),
        case("a limit between steps", "SELECT count(*) AS n FROM (SELECT * FROM {events} LIMIT 100)", |t| {
            t.events.head(100)?.aggregate(vec![], vec![count(lit(1_i64)).alias("n")])
        }),
        case(
            "an aggregate joined to what it is of",
            "SELECT n.g, n.x, m.m FROM {nulls} n JOIN (SELECT g, max(x) AS m FROM {nulls} GROUP BY g) m ON n.g = m.g",
            |t| {
                let most = t.nulls.aggregate(vec![col("g")], vec![max(col("x")).alias("m")])?;
                t.nulls.join(&most, Join::on(JoinKind::Inner, &["g"]))
            },
        ),
    ]
}
