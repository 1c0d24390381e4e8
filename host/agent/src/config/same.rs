//! Whether two configurations say the same, wherever in the file they say it: a comment that was added is no reason to start again.

use super::{AlertWay, Config, LinkConfig, Location};

impl Config {
    /// True when there is no difference but of places in the file.
    pub fn says_the_same(&self, other: &Config) -> bool {
        self.without_places() == other.without_places()
    }

    fn without_places(&self) -> Config {
        let mut config = self.clone();
        let nowhere = Location::default();
        for link in config.links.values_mut() {
            match link {
                LinkConfig::Mqtt(link) => link.at = nowhere,
                LinkConfig::HttpServer(link) => link.at = nowhere,
                LinkConfig::HttpClient(link) => link.at = nowhere,
                LinkConfig::Ftps(link) => link.at = nowhere,
            }
        }
        for (_, target) in &mut config.targets {
            target.at = nowhere;
        }
        for adapter in config.adapters.values_mut() {
            (adapter.at, adapter.component_at) = (nowhere, nowhere);
        }
        for repository in config.repositories.values_mut() {
            repository.at = nowhere;
        }
        for alert in config.alerts.values_mut() {
            alert.at = nowhere;
            if let AlertWay::Webhook { client, .. } = &mut alert.way {
                client.at = nowhere;
            }
        }
        config
    }
}
