//! Settings of an executor.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::network::Network;

/// Settings of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Partitions computed at a time. 0 takes the cores of the machine.
    pub slots: u32,
    /// Memory for operators, shuffle data and results, and what else the process has resident: at most a quarter more. 0 or `auto` takes three
    /// quarters of what the machine has or the process's cgroup allows, divided by the executors started together.
    #[serde(deserialize_with = "size_or_auto")]
    pub memory_limit: ByteSize,
    /// Where segments and operators spill: a folder, or several as `PATH` has them, which get files in turn. Empty takes a folder of
    /// the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes on disk in the spill directory. 100 GB: what DataFusion allows by default.
    pub spill_limit: ByteSize,
    /// The share of the memory limit, in percent, from which the store writes cold segments to disk behind the queries. 60: early
    /// enough that an operator that asks synchronously finds clean segments to drop.
    pub evict_from_percent: u32,
    /// Bytes in flight of one shuffle stream. 8 MiB: two full batches of wide rows; with 64 peers that is 512 MiB.
    pub fetch_window: ByteSize,
    /// Networks, as in `10.0.0.0/8`, whose clients reach the address that this executor advertises, and may read results from it
    /// (`results.fetch`). As one text, commas divide them. None by default: drivers wait long for an address that does not answer.
    #[serde(deserialize_with = "networks")]
    pub client_networks: Vec<Network>,
    /// The interpreter that runs Python functions of queries, with pyarrow and cloudpickle installed: a path, or a name that `PATH` finds.
    /// Not set, there are none. Whoever may query then runs code as the user of this process.
    pub python: Option<PathBuf>,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            slots: 0,
            memory_limit: ByteSize::b(0),
            spill_dir: None,
            spill_limit: ByteSize::gb(100),
            evict_from_percent: 60,
            fetch_window: ByteSize::mib(8),
            client_networks: Vec::new(),
            python: None,
        }
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Many(Vec<String>),
        One(String),
    }
    let texts = match List::deserialize(deserializer)? {
        List::Many(texts) => texts,
        List::One(text) => text.split(',').filter(|part| !part.trim().is_empty()).map(str::to_owned).collect(),
    };
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

/// A size, or the word `auto` for 0.
fn size_or_auto<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Auto,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Setting {
        Word(Word),
        Size(ByteSize),
    }
    Ok(match Setting::deserialize(deserializer)? {
        Setting::Word(Word::Auto) => ByteSize::b(0),
        Setting::Size(size) => size,
    })
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format, Serialized, Toml};

    use crate::config::Config;

    fn read(text: &str) -> Result<Config, Box<figment::Error>> {
        Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(text)).extract().map_err(Box::new)
    }

    #[test]
    fn networks_are_a_list_or_one_text() {
        let both =
            ["[executor]\nclient_networks = ['10.0.0.0/8', 'fd00::/8']", "[executor]\nclient_networks = '10.0.0.0/8, fd00::/8,'"];
        for text in both {
            let networks: Vec<String> = read(text).unwrap().executor.client_networks.iter().map(ToString::to_string).collect();
            assert_eq!(networks, ["10.0.0.0/8", "fd00::/8"]);
        }
        assert!(read("").unwrap().executor.client_networks.is_empty());
        let wrong = read("[executor]\nclient_networks = ['everywhere']").unwrap_err().to_string();
        assert!(wrong.contains("'everywhere' is not a network"), "{wrong}");
    }

    #[test]
    fn where_results_are_read_from_is_one_of_three_words() {
        use crate::config::Fetch;
        for (word, fetch) in [("auto", Fetch::Auto), ("direct", Fetch::Direct), ("relay", Fetch::Relay)] {
            assert_eq!(read(&format!("[results]\nfetch = '{word}'")).unwrap().results.fetch, fetch);
        }
        assert_eq!(read("").unwrap().results.fetch, Fetch::Auto);
        assert!(read("[results]\nfetch = 'always'").is_err());
        assert_eq!(read("[results]\nunfetched_max = '1 GiB'").unwrap().results.unfetched_max.as_u64(), 1 << 30);
    }
}
