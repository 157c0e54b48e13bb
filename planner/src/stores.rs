//! Where files are: folders of this machine, and object stores, which are opened when a query first names one.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use url::{Position, Url};
use windrow_core::{Error, ErrorKind};

/// Stores that stay open. A connection pool and its certificates are some hundred kilobytes.
const OPEN_MAX: usize = 64;

/// The stores of a process: local files, `s3://`, `gs://`, `az://` and `abfss://`, and single files over `http://` and `https://`.
/// Credentials, region and endpoint are those of the process's environment, under the names that the stores' own tools use.
#[derive(Debug, Default)]
pub struct Stores {
    given: DefaultObjectStoreRegistry,
    opened: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

/// Those of this process, shared by its sessions and executors.
#[must_use]
pub fn stores() -> Arc<Stores> {
    static STORES: LazyLock<Arc<Stores>> = LazyLock::new(Arc::default);
    Arc::clone(&STORES)
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.given.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.given.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if let Ok(store) = self.given.get_store(url) {
            return Ok(store);
        }
        let name = &url[..Position::BeforePath];
        let mut opened = self.opened.lock();
        if let Some(store) = opened.get(name) {
            return Ok(Arc::clone(store));
        }
        let store = open(url).map_err(|error| DataFusionError::External(Box::new(error)))?;
        if opened.len() >= OPEN_MAX {
            opened.clear();
        }
        opened.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// Few and soon: an attempt that fails is made again elsewhere, after a backoff and within the job's budget.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 },
        max_retries: 5,
        retry_timeout: Duration::from_secs(10),
    }
}

fn open(url: &Url) -> std::result::Result<Arc<dyn ObjectStore>, Error> {
    let opened = match url.scheme() {
        "s3" | "s3a" => AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared),
        "gs" => GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared),
        "az" | "azure" | "abfs" | "abfss" | "adl" => {
            MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared)
        }
        "http" | "https" => {
            let options = ClientOptions::new().with_allow_http(true);
            let builder = HttpBuilder::new().with_url(&url[..Position::BeforePath]);
            builder.with_client_options(options).with_retry(retry()).build().map(shared)
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("files at '{}' cannot be read", &url[..Position::BeforePath]),
            )
            .with_help("known are local paths, s3://, gs://, az://, abfss://, http:// and https://"));
        }
    };
    opened.map_err(|source| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("the store of '{}' cannot be opened: {source}", &url[..Position::BeforePath]),
        )
        .with_help(
            "credentials, region and endpoint are read from the environment of scheduler and executors, such as AWS_REGION",
        )
        .with_source(source)
    })
}

fn shared(store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    Arc::new(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_opened_once_and_not_without_end() {
        let stores = Stores::default();
        let get = |url: &str| stores.get_store(&Url::parse(url).unwrap());
        assert!(Arc::ptr_eq(&get("http://127.0.0.1:1/a/b.csv").unwrap(), &get("http://127.0.0.1:1/c.csv").unwrap()));
        for port in 1..200 {
            get(&format!("http://127.0.0.1:{port}/")).unwrap();
        }
        assert!(stores.opened.lock().len() <= OPEN_MAX);
        assert!(get("file:///tmp").is_ok());
        let error = get("ftp://host/file.csv").unwrap_err().to_string();
        assert!(error.contains("ftp://"), "{error}");
    }
}
