//! The names of tables in a text, for clients that may bring some of them along. Next: `sql.rs`.

use datafusion::sql::resolve::resolve_table_references;

use crate::sql;

/// The tables that a text names without a schema, in order of their names; those that it defines itself with WITH are not among them.
/// A text that does not parse names none: running it says why.
#[must_use]
pub fn table_references(text: &str) -> Vec<String> {
    let Ok(statement) = sql::parse(text) else { return Vec::new() };
    let Ok((tables, _defined_here)) = resolve_table_references(&statement, true) else { return Vec::new() };
    tables.into_iter().filter(|table| table.schema().is_none()).map(|table| table.table().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::table_references;

    #[test]
    fn tables_without_a_schema_are_named_once() {
        let text = "WITH c AS (SELECT * FROM a) SELECT * FROM c JOIN B USING (x), \"D\", s.e WHERE x IN (SELECT y FROM a)";
        assert_eq!(table_references(text), ["D", "a", "b"]);
    }

    #[test]
    fn what_is_no_query_names_none() {
        assert!(table_references("SELEC 1").is_empty());
        assert!(table_references("SET datafusion.execution.batch_size = 10").is_empty());
    }
}
