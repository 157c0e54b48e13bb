//! The schema `temp`: tables and views that only their session sees, until it ends. Next: `build.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Statement as SqlStatement};
use parking_lot::RwLock;
use windrow_core::{Error, ErrorKind, Result};

use super::definition::Kind;
use super::{Existing, Object, TEMP, other_kind, taken};

/// Temporary objects of one session.
const TEMPORARY_MAX: usize = 10_000;

/// The temporary objects of one session.
#[derive(Debug, Default)]
pub(crate) struct Temporary {
    objects: RwLock<BTreeMap<String, TemporaryObject>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) enum TemporaryObject {
    /// An external table or a view.
    Defined(Arc<Object>),
    /// A table whose rows are in memory.
    Memory(Arc<dyn TableProvider>),
}

impl TemporaryObject {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Defined(object) => object.definition.kind(),
            Self::Memory(_) => Kind::Table,
        }
    }
}

impl Temporary {
    pub(crate) fn find(&self, name: &str) -> Option<TemporaryObject> {
        self.objects.read().get(name).cloned()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.read().keys().cloned().collect()
    }

    /// Creates an object; returns whether anything has changed.
    pub(crate) fn create(&self, name: &str, object: TemporaryObject, existing: Existing) -> Result<bool> {
        let mut objects = self.objects.write();
        if let Some(before) = objects.get(name) {
            match existing {
                Existing::Keep => return Ok(false),
                Existing::Replace if before.kind() == object.kind() => {}
                Existing::Refuse | Existing::Replace => return Err(taken(before.kind(), TEMP, name)),
            }
        } else if objects.len() >= TEMPORARY_MAX {
            let message = format!("this session has {TEMPORARY_MAX} temporary tables and views, and takes no more");
            return Err(Error::new(ErrorKind::ResourcesExhausted, message).with_help("drop some"));
        }
        if let TemporaryObject::Defined(object) = &object {
            // Nobody has it but this session.
            object.files.drop_with_last();
        }
        objects.insert(name.to_owned(), object);
        Ok(true)
    }

    /// Drops an object; returns whether there was one.
    pub(crate) fn drop_object(&self, name: &str, kind: Kind) -> Result<bool> {
        let mut objects = self.objects.write();
        let Some(found) = objects.get(name).map(TemporaryObject::kind) else { return Ok(false) };
        if found != kind {
            return Err(other_kind(found, TEMP, name));
        }
        objects.remove(name);
        Ok(true)
    }
}

/// `CREATE TEMPORARY TABLE t` is `CREATE TABLE temp.t`: DataFusion knows the schema, and not the word.
pub(crate) fn in_temporary_schema(mut statement: Statement) -> Statement {
    match &mut statement {
        Statement::Statement(sql) => match sql.as_mut() {
            SqlStatement::CreateTable(create) => qualify(&mut create.temporary, &mut create.name),
            SqlStatement::CreateView(create) => qualify(&mut create.temporary, &mut create.name),
            _ => {}
        },
        Statement::CreateExternalTable(create) => qualify(&mut create.temporary, &mut create.name),
        _ => {}
    }
    statement
}

/// A name that is qualified already keeps the word, and is refused if it is not in `temp`.
fn qualify(temporary: &mut bool, name: &mut ObjectName) {
    let schema = || ObjectNamePart::Identifier(Ident::new(TEMP));
    match name.0.as_slice() {
        [_name] if *temporary => name.0.insert(0, schema()),
        [ObjectNamePart::Identifier(first), _name] if *temporary && first.value.eq_ignore_ascii_case(TEMP) => {}
        _ => return,
    }
    *temporary = false;
}
