//! A [`Scope`] as DataFusion asks for it: catalogs have schemas, schemas have tables. Next: `build.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::TableType;

use super::definition::Definition;
use super::listing::{Description, listed_in, schemas_of, table_type};
use super::scope::{SEARCH, Scope};
use super::{CATALOG, INFORMATION, SYSTEM, TEMP};
use crate::files::looks_like_path;

/// The list of catalogs, of which there is one.
#[derive(Debug)]
pub(super) struct Catalogs {
    scope: Arc<Scope>,
    /// Tables are described, not opened: a view that cannot be planned, or files that are gone, are still listed.
    describe: bool,
}

impl Catalogs {
    pub(super) fn new(scope: Arc<Scope>) -> Self {
        Self { scope, describe: false }
    }
}

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let found = || Schemas { scope: Arc::clone(&self.scope), describe: self.describe };
        (name == CATALOG).then(|| Arc::new(found()) as Arc<dyn CatalogProvider>)
    }
}

/// The catalog.
#[derive(Debug)]
struct Schemas {
    scope: Arc<Scope>,
    describe: bool,
}

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        schemas_of(&self.scope)
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == INFORMATION {
            let described = Catalogs { scope: Arc::clone(&self.scope), describe: true };
            let functions = self.scope.state().table_functions().clone();
            return Some(Arc::new(InformationSchemaProvider::new(Arc::new(described)).with_table_functions(functions)));
        }
        let is_there = name == SEARCH || self.scope.has_schema(name);
        let schema = || Tables {
            scope: Arc::clone(&self.scope),
            schema: name.to_owned(),
            definition: self.scope.objects.definition(name),
            describe: self.describe,
        };
        is_there.then(|| Arc::new(schema()) as Arc<dyn SchemaProvider>)
    }
}

/// One schema.
#[derive(Debug)]
struct Tables {
    scope: Arc<Scope>,
    schema: String,
    definition: Option<Arc<Definition>>,
    describe: bool,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn owner_name(&self) -> Option<&str> {
        self.definition.as_ref().map(|definition| definition.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    fn table_names(&self) -> Vec<String> {
        listed_in(&self.scope, &self.schema).into_iter().map(|listed| listed.name).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.describe {
            let listed = listed_in(&self.scope, &self.schema).into_iter().find(|listed| listed.name == name);
            return Ok(listed.map(|listed| Arc::new(Description::new(listed)) as Arc<dyn TableProvider>));
        }
        let found = match self.schema.as_str() {
            SEARCH => return self.scope.search(name).await,
            TEMP => self.scope.temporary(name).await?,
            SYSTEM => self.scope.system(name)?,
            schema => self.scope.shared(schema, name).await?,
        };
        match found {
            None if looks_like_path(name) => self.scope.file(name).await.map(Some),
            found => Ok(found),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let listed = listed_in(&self.scope, &self.schema).into_iter().find(|listed| listed.name == name);
        Ok(listed.map(|listed| table_type(listed.kind)))
    }

    fn table_exist(&self, name: &str) -> bool {
        match self.schema.as_str() {
            TEMP => self.scope.temporary.as_ref().is_some_and(|temporary| temporary.find(name).is_some()),
            SEARCH | SYSTEM => listed_in(&self.scope, &self.schema).iter().any(|listed| listed.name == name),
            schema => self.scope.objects.find(schema, name).is_some(),
        }
    }
}
