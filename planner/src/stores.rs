//! Where files are: folders of this machine, and object stores, which are opened when a query first names one.
//!
//! ```text
//! stores/policy.rs     what may be opened at all        stores/within.rs       folders of a remote store
//! stores/local.rs      files below listed folders       stores/redirects.rs    http(s) that stays below its prefixes
//! stores/walk.rs       their listing
//! ```
//!
//! A policy is asked twice: when a statement names a place (`StorePolicy::admit`), with the user's own words for the error, and by
//! the stores themselves at every call, on the coordinator and on executors, whatever plan the call comes from.

mod local;
mod policy;
mod redirects;
mod walk;
mod within;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::Result;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use url::{Position, Url};
use windrow_core::{Error, ErrorKind};

use self::local::RootedFiles;
pub use self::policy::{LocalRoot, StorePolicy, StorePrefix};
use self::policy::{outside_of_prefixes, outside_of_roots};
use self::redirects::StayBelow;
use self::within::Within;

use crate::diagnose::ours;

/// Stores that stay open. A connection pool and its certificates are some hundred kilobytes.
const OPEN_MAX: usize = 64;

/// The stores of a process: local files, `s3://`, `gs://`, `az://` and `abfss://`, and single files over `http://` and `https://`, as
/// far as a policy allows. Credentials, region and endpoint are those of the process's environment, under the names that the stores'
/// own tools use. Sessions and executors of one process share one of these.
#[derive(Debug, Default)]
pub struct Stores {
    policy: StorePolicy,
    given: DefaultObjectStoreRegistry,
    opened: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    /// Stores that open what `policy` allows.
    #[must_use]
    pub fn new(policy: StorePolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// What they open.
    #[must_use]
    pub fn policy(&self) -> &StorePolicy {
        &self.policy
    }

    /// A store that any path may be asked of, registered or opened now.
    fn reach(&self, url: &Url, prefixes: &[StorePrefix]) -> std::result::Result<Arc<dyn ObjectStore>, Error> {
        if let Ok(store) = self.given.get_store(url) {
            return Ok(store);
        }
        let name = &url[..Position::BeforePath];
        let mut opened = self.opened.lock();
        if let Some(store) = opened.get(name) {
            return Ok(Arc::clone(store));
        }
        let store = open(url, prefixes)?;
        if opened.len() >= OPEN_MAX {
            opened.clear();
        }
        opened.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    fn admitted(&self, url: &Url) -> std::result::Result<Arc<dyn ObjectStore>, Error> {
        let StorePolicy::Listed { local, stores } = &self.policy else { return self.reach(url, &[]) };
        if url.scheme() == "file" {
            let is_ours = url.host_str().is_none_or(str::is_empty) && !local.is_empty();
            return if is_ours { Ok(Arc::new(RootedFiles::new(local))) } else { Err(outside_of_roots(url.as_str())) };
        }
        let folders: Vec<_> =
            stores.iter().filter(|prefix| prefix.is_of_store(url)).map(|prefix| prefix.path().clone()).collect();
        if folders.is_empty() {
            return Err(outside_of_prefixes(url.as_str()));
        }
        let inner = self.reach(url, stores)?;
        Ok(Arc::new(Within::new(inner, &url[..Position::BeforePath], folders.into_iter())))
    }
}

/// Two are equal if they open the same.
impl PartialEq for Stores {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy
    }
}

impl Eq for Stores {}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.given.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.given.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.admitted(url).map_err(ours)
    }
}

/// The refusal of a place that a store's error holds, if it is one.
#[must_use]
pub fn denial<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|cause| cause.downcast_ref::<Error>().filter(|error| error.kind == ErrorKind::Denied))
}

/// Few and soon: an attempt that fails is made again elsewhere, after a backoff and within the job's budget.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 },
        max_retries: 5,
        retry_timeout: Duration::from_secs(10),
    }
}

/// Opens a store; `prefixes` are what redirects of an http(s) one must stay below, or none.
fn open(url: &Url, prefixes: &[StorePrefix]) -> std::result::Result<Arc<dyn ObjectStore>, Error> {
    let opened = match url.scheme() {
        "s3" | "s3a" => AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared),
        "gs" => GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared),
        "az" | "azure" | "abfs" | "abfss" | "adl" => {
            MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry()).build().map(shared)
        }
        "http" | "https" => {
            let options = ClientOptions::new().with_allow_http(true);
            let builder = HttpBuilder::new().with_url(&url[..Position::BeforePath]);
            let builder = builder.with_client_options(options).with_retry(retry());
            let builder = match prefixes {
                [] => builder,
                prefixes => builder.with_http_connector(StayBelow { prefixes: prefixes.to_vec() }),
            };
            builder.build().map(shared)
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
mod tests;
