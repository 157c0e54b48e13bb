//! What a statement needs, by what it is: read, change what is the session's own, write, administer.
//!
//! The parsed statement decides, with the statements in it (EXPLAIN, PREPARE, a CTE that writes). Its plan is asked as well, because
//! some statements are not what they look like: `SELECT ... INTO` makes a table. What nobody has classified needs an administrator.

use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Set, Statement as Sql, Visit, Visitor};
use windrow_core::{Error, ErrorKind, Result};

use crate::python::is_own_function;

/// The schema of a session's own objects.
const TEMPORARY: &str = "temp";

/// What a session's statements may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowed {
    /// Queries, and changes of what is the session's own: settings, prepared statements, temporary objects.
    Read,
    /// Also INSERT and COPY, and changes of shared tables, views and schemas.
    Write,
    /// Whatever SQL can say.
    #[default]
    Everything,
}

/// What a statement needs, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Read,
    /// Changes settings, prepared statements or temporary objects of the session.
    ReadTemporary,
    Write,
    Administer,
}

impl Allowed {
    /// Refuses what needs more.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub(crate) fn admit(self, need: Need) -> Result<()> {
        let (what, role) = match (self, need) {
            (_, Need::Read | Need::ReadTemporary) | (Self::Write | Self::Everything, Need::Write) | (Self::Everything, _) => {
                return Ok(());
            }
            (Self::Read, Need::Write) => ("writes data or changes shared tables, and this session may only read", "writer"),
            (Self::Read | Self::Write, Need::Administer) => ("is for administrators", "admin"),
        };
        let error = Error::new(ErrorKind::Denied, format!("the statement {what}; ask an administrator for the role {role}"));
        Err(if need == Need::Write {
            error.with_help("tables and views of your own can be made with CREATE TEMPORARY TABLE and CREATE TEMPORARY VIEW")
        } else {
            error
        })
    }
}

/// What a statement needs, with all that is in it.
pub(crate) fn need_of(statement: &Statement) -> Need {
    match statement {
        Statement::Statement(sql) => {
            let mut needs = Needs(Need::Read);
            let _ = sql.visit(&mut needs);
            needs.0
        }
        Statement::CreateExternalTable(create) => own_or_shared(create.temporary, [&create.name]),
        Statement::CopyTo(_) => Need::Write,
        Statement::Explain(explain) => need_of(&explain.statement),
        Statement::Reset(_) => Need::ReadTemporary,
    }
}

/// The most that a statement and those in it need.
struct Needs(Need);

impl Visitor for Needs {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Sql) -> ControlFlow<()> {
        self.0 = self.0.max(need_of_sql(statement));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &datafusion::sql::sqlparser::ast::Select) -> ControlFlow<()> {
        if select.into.as_ref().is_some_and(|into| own_or_shared(into.temporary, [&into.name]) == Need::Write) {
            self.0 = self.0.max(Need::Write);
        }
        ControlFlow::Continue(())
    }
}

fn need_of_sql(statement: &Sql) -> Need {
    match statement {
        Sql::Query(_)
        | Sql::Explain { .. }
        | Sql::ExplainTable { .. }
        | Sql::ShowFunctions { .. }
        | Sql::ShowVariable { .. }
        | Sql::ShowVariables { .. }
        | Sql::ShowStatus { .. }
        | Sql::ShowCreate { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowCatalogs { .. }
        | Sql::ShowDatabases { .. }
        | Sql::ShowSchemas { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowViews { .. }
        | Sql::ShowCollation { .. } => Need::Read,
        Sql::Set(Set::SetRole { .. } | Set::SetSessionAuthorization(_)) => Need::Administer,
        Sql::Set(_)
        | Sql::Reset(_)
        | Sql::Use(_)
        | Sql::Prepare { .. }
        | Sql::Execute { .. }
        | Sql::Deallocate { .. }
        | Sql::Discard { .. }
        | Sql::Declare { .. }
        | Sql::Fetch { .. }
        | Sql::Close { .. }
        | Sql::StartTransaction { .. }
        | Sql::Commit { .. }
        | Sql::Rollback { .. }
        | Sql::Savepoint { .. }
        | Sql::ReleaseSavepoint { .. } => Need::ReadTemporary,
        Sql::CreateTable(create) => own_or_shared(create.temporary, [&create.name]),
        Sql::CreateView(create) => own_or_shared(create.temporary, [&create.name]),
        Sql::CreateFunction(create) if is_own_function(create) => Need::ReadTemporary,
        Sql::Drop { temporary, names, .. } => own_or_shared(*temporary, names),
        Sql::Insert(_)
        | Sql::Update(_)
        | Sql::Delete(_)
        | Sql::Merge(_)
        | Sql::Truncate(_)
        | Sql::Copy { .. }
        | Sql::CreateSchema { .. }
        | Sql::CreateIndex(_)
        | Sql::AlterTable(_)
        | Sql::AlterView { .. }
        | Sql::AlterSchema(_)
        | Sql::AlterIndex { .. }
        | Sql::RenameTable(_)
        | Sql::Comment { .. }
        | Sql::Analyze(_) => Need::Write,
        _ => Need::Administer,
    }
}

/// Temporary objects, by keyword or by schema, are the session's own.
fn own_or_shared<'a>(is_temporary: bool, names: impl IntoIterator<Item = &'a ObjectName>) -> Need {
    let is_own = |name: &ObjectName| {
        let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        matches!(parts.as_slice(), [.., schema, _] if schema.value.eq_ignore_ascii_case(TEMPORARY))
    };
    let mut names = names.into_iter().peekable();
    if is_temporary || (names.peek().is_some() && names.all(is_own)) { Need::ReadTemporary } else { Need::Write }
}

/// What one node of a plan needs.
pub(crate) fn need_of_node(node: &LogicalPlan) -> Need {
    match node {
        LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => Need::Write,
        LogicalPlan::Ddl(ddl) => match ddl {
            DdlStatement::CreateExternalTable(create) => own_or_shared_table(create.temporary, &create.name),
            DdlStatement::CreateMemoryTable(create) => own_or_shared_table(create.temporary, &create.name),
            DdlStatement::CreateView(create) => own_or_shared_table(create.temporary, &create.name),
            // The plan has forgotten DROP TEMPORARY; the statement, which has not, was asked.
            DdlStatement::DropTable(_) | DdlStatement::DropView(_) => Need::ReadTemporary,
            DdlStatement::CreateCatalogSchema(_) | DdlStatement::DropCatalogSchema(_) | DdlStatement::CreateIndex(_) => {
                Need::Write
            }
            // One for all sessions is nowhere made.
            DdlStatement::CreateFunction(create) if create.temporary => Need::ReadTemporary,
            DdlStatement::CreateCatalog(_) | DdlStatement::CreateFunction(_) | DdlStatement::DropFunction(_) => Need::Administer,
        },
        LogicalPlan::Statement(
            PlanStatement::TransactionStart(_)
            | PlanStatement::TransactionEnd(_)
            | PlanStatement::SetVariable(_)
            | PlanStatement::ResetVariable(_)
            | PlanStatement::Prepare(_)
            | PlanStatement::Execute(_)
            | PlanStatement::Deallocate(_),
        ) => Need::ReadTemporary,
        _ => Need::Read,
    }
}

fn own_or_shared_table(is_temporary: bool, name: &TableReference) -> Need {
    let is_own = name.schema().is_some_and(|schema| schema.eq_ignore_ascii_case(TEMPORARY));
    if is_temporary || is_own { Need::ReadTemporary } else { Need::Write }
}
