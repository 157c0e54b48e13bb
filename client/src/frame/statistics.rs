//! What a frame's columns are like, and some of its rows. Next: `actions.rs`.

use arrow::datatypes::{DataType, Field};
use datafusion::common::Column;
use datafusion::functions::expr_fn::{concat_ws, md5, random};
use datafusion::functions_aggregate::expr_fn::{approx_percentile_cont, avg, count, max, min, stddev};
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, cast, lit};
use windrow_core::Result;

use super::{DataFrame, ScalarValue, col, fail, invalid};

/// How [`DataFrame::sample`] chooses rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// How many.
    pub size: SampleSize,
    /// The same rows of the same data are chosen for the same seed, wherever they are; without one, others each time.
    pub seed: Option<u64>,
}

/// How many rows a sample has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleSize {
    /// About this part of them, from 0 to 1: each is chosen by itself.
    Fraction(f64),
    /// Exactly this many, or all if there are fewer.
    Rows(usize),
}

/// The names of the rows of [`DataFrame::describe`].
const STATISTICS: [&str; 9] = ["count", "null_count", "mean", "std", "min", "25%", "50%", "75%", "max"];

impl DataFrame {
    /// A row for each of count, null count, mean, standard deviation, least, quartiles and greatest, with a column for each of this
    /// frame's that has an order. Quartiles are approximate; columns of numbers have numbers, others text.
    ///
    /// # Errors
    /// `InvalidQuery` if no column has an order, or one is named `statistic`.
    pub fn describe(&self) -> Result<Self> {
        let schema = self.schema();
        let described: Vec<&Field> =
            schema.fields().iter().filter(|field| is_ordered(field.data_type())).map(AsRef::as_ref).collect();
        if described.is_empty() {
            return Err(invalid("no column has an order, so there is nothing to describe"));
        }
        if described.iter().any(|field| field.name() == "statistic") {
            return Err(invalid("a column is named 'statistic', as the one with the names of the statistics")
                .with_help("rename it first"));
        }
        let place = |column: usize, statistic: usize| format!("{column}_{statistic}");
        let mut computed = Vec::with_capacity(described.len() * STATISTICS.len());
        for (column, field) in described.iter().enumerate() {
            for (statistic, value) in statistics_of(field).into_iter().enumerate() {
                computed.extend(value.map(|value| value.alias(place(column, statistic))));
            }
        }
        let row = self.aggregate(Vec::new(), computed)?;
        let mut lists = vec![make_array(STATISTICS.iter().map(|name| lit(*name)).collect()).alias("statistic")];
        for (column, field) in described.iter().enumerate() {
            let wants = if field.data_type().is_numeric() { DataType::Float64 } else { DataType::Utf8 };
            let null = ScalarValue::try_from(&wants).map_err(fail)?;
            let values = (0..STATISTICS.len()).map(|statistic| {
                let name = place(column, statistic);
                if row.has(&name) { cast(col(name), wants.clone()) } else { lit(null.clone()) }
            });
            lists.push(make_array(values.collect()).alias(field.name()));
        }
        let names = std::iter::once("statistic").chain(described.iter().map(|field| field.name().as_str()));
        let names = names.map(Column::from_name).collect();
        row.then(row.projected(lists)?, 1)?.exploded(names)
    }

    /// Some of the rows, chosen by chance.
    ///
    /// # Errors
    /// `InvalidQuery` for a part that is not between 0 and 1.
    pub fn sample(&self, sample: Sample) -> Result<Self> {
        if let SampleSize::Fraction(fraction) = sample.size
            && !(0.0..=1.0).contains(&fraction)
        {
            return Err(invalid(format!("a sample is a part of the rows, from 0 to 1, and not {fraction}")));
        }
        let name = self.fresh("sample_key");
        let (keyed, key) = match sample.seed {
            None => (self.with_columns(vec![random().alias(&name)])?, col(&name)),
            Some(seed) => (self.with_columns(vec![self.seeded(seed)?.alias(&name)])?, col(&name)),
        };
        let chosen = match (sample.size, sample.seed) {
            (SampleSize::Rows(rows), _) => keyed.top_k(rows, vec![key.sort(true, false)])?,
            (SampleSize::Fraction(1.0), _) => return Ok(self.clone()),
            (SampleSize::Fraction(fraction), None) => keyed.filter(key.lt(lit(fraction)))?,
            (SampleSize::Fraction(fraction), Some(_)) => keyed.filter(key.lt(lit(threshold(fraction))))?,
        };
        chosen.drop_columns(&[name])
    }

    /// A number in hexadecimal digits for each row, of the seed, the row's values, and its number among rows that are equal in them. So it
    /// is the same wherever the row is read, and rows that are equal may have different ones.
    fn seeded(&self, seed: u64) -> Result<Expr> {
        let schema = self.schema();
        let values: Vec<&Field> =
            schema.fields().iter().filter(|field| is_ordered(field.data_type())).map(AsRef::as_ref).collect();
        let number = row_number().partition_by(values.iter().map(|field| col(field.name())).collect()).build().map_err(fail)?;
        let mut parts = vec![lit(seed.to_string()), cast(number, DataType::Utf8)];
        for field in values {
            parts.push(cast(col(field.name()).is_null(), DataType::Utf8));
            parts.push(cast(col(field.name()), DataType::Utf8));
        }
        Ok(md5(concat_ws(lit("\u{1f}"), parts)))
    }
}

/// What a column's statistics are computed by; `None` for those that it has none of.
fn statistics_of(field: &Field) -> [Option<Expr>; 9] {
    let column = || col(field.name());
    let nulls = count(lit(1_i64)) - count(column());
    let is_number = field.data_type().is_numeric();
    let number = |value: Expr| is_number.then_some(value);
    let as_number = || cast(column(), DataType::Float64);
    let quartile = |part: f64| number(approx_percentile_cont(as_number().sort(true, false), lit(part), None));
    [
        Some(count(column())),
        Some(nulls),
        number(avg(as_number())),
        number(stddev(as_number())),
        Some(min(column())),
        quartile(0.25),
        quartile(0.5),
        quartile(0.75),
        Some(max(column())),
    ]
}

/// Whether values of the type have an order, and a form as text.
fn is_ordered(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => true,
        DataType::Dictionary(_, value) => is_ordered(value),
        of => of.is_numeric() || of.is_temporal(),
    }
}

/// The digits below which this part of all numbers is.
fn threshold(fraction: f64) -> String {
    // The digits of 52 bits, which is what a double holds.
    let digits = 13;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^52")]
    let below = (fraction * 2_f64.powi(4 * digits)) as u64;
    format!("{below:0width$x}", width = usize::try_from(digits).unwrap_or(13))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_has_as_many_digits_as_it_needs_to_be_compared_as_text() {
        assert_eq!(threshold(0.0), "0000000000000");
        assert_eq!(threshold(0.5), "8000000000000");
        assert_eq!(threshold(0.25), "4000000000000");
        assert!(threshold(0.999).as_str() < "ffffffffffff0");
    }
}
