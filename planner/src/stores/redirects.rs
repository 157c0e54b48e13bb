//! A connection over http(s) that a server cannot send elsewhere: redirects stay below the listed prefixes.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector};
use reqwest::redirect::Policy;

use super::local::generic;
use super::policy::{StorePrefix, outside_of_prefixes};

/// Redirects of one request, as many as reqwest allows by itself.
const REDIRECTS_MAX: usize = 10;

/// The time limits of object_store's own connections.
const REQUEST_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Connects with object_store's defaults and follows redirects below `prefixes` only.
#[derive(Debug)]
pub(super) struct StayBelow {
    pub(super) prefixes: Vec<StorePrefix>,
}

impl HttpConnector for StayBelow {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let prefixes = self.prefixes.clone();
        let policy = Policy::custom(move |attempt| {
            if attempt.previous().len() >= REDIRECTS_MAX {
                attempt.stop()
            } else if prefixes.iter().any(|prefix| prefix.covers(attempt.url())) {
                attempt.follow()
            } else {
                let target = outside_of_prefixes(attempt.url().as_str());
                attempt.error(target)
            }
        });
        // Compressed answers would have another length than the file.
        let client = reqwest::Client::builder().no_gzip().no_brotli().no_zstd().no_deflate();
        let client = client.redirect(policy).timeout(REQUEST_MAX).connect_timeout(CONNECT_MAX);
        Ok(HttpClient::new(client.build().map_err(generic)?))
    }
}
