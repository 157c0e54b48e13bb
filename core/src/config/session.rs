//! Settings of clients' sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// Settings of clients' sessions on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// How long a session may be unused before it is closed, with its settings and temporary tables. A statement that runs or is read
    /// uses it, and so does a result that is kept (`results.ttl`). 4 h: longer than people leave a notebook over lunch. 0s is no limit.
    #[serde(with = "duration")]
    pub idle_max: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { idle_max: Duration::from_secs(4 * 3600) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use figment::Figment;
    use figment::providers::{Format, Serialized, Toml};

    use crate::config::Config;

    #[test]
    fn limits_of_sessions_connections_and_statements_are_read() {
        let text = "[session]\nidle_max = '90s'\n[connections]\nidle = '1m'\nrequest_bytes = '1 GiB'\n\
                    [query]\ntime_limit = '2m'\n[scheduler]\ntime_limit_max = '1h'";
        let config: Config = Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(text)).extract().unwrap();
        assert_eq!(config.session.idle_max, Duration::from_secs(90));
        assert_eq!(config.connections.idle, Duration::from_secs(60));
        assert_eq!(config.connections.age, Duration::from_secs(3600), "the default");
        assert_eq!(config.connections.request_bytes.as_u64(), 1 << 30);
        assert_eq!(config.query.time_limit, Duration::from_secs(120));
        assert_eq!(config.scheduler.time_limit_max, Duration::from_secs(3600));
        let mut query = config.query;
        assert_eq!(query.get("time_limit").as_deref(), Some("2m"));
        query.set("time_limit", "none").unwrap();
        assert!(query.time_limit.is_zero());
        assert_eq!(query.get("time_limit").as_deref(), Some("0s"), "which can be set again");
        query.set("time_limit", "0s").unwrap();
        assert!(query.set("time_limit", "soon").unwrap_err().message.contains("'soon'"));
    }
}
