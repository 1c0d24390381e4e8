//! The same repositories behind a server that cuts, stalls, lies and redirects.

#![cfg(feature = "https")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use otahost_adapters::{Repository, RepositoryError, RepositoryOptions, RepositorySource, Role};
use otahost_disk::sim::SimDisk;
use otahost_lab::files::{Fault, Files};
use otahost_lab::tls;
use support::{Device, Publisher, hex, sha256};

struct Site {
    server: Files,
    disk: SimDisk,
    publisher: Publisher,
}

impl Site {
    fn new(publisher: Publisher) -> Self {
        let site = Self {
            server: Files::start_tls(),
            disk: SimDisk::new(),
            publisher,
        };
        site.serve();
        site
    }

    fn serve(&self) {
        for (path, bytes) in &self.publisher.files {
            self.server.put(path, bytes.clone());
        }
    }

    fn options(&self) -> RepositoryOptions {
        let base = self.server.url("");
        let mut options = Device::trusting(&self.publisher).options();
        options.source = RepositorySource::https(&base, Some(tls::CA_PEM.into())).unwrap();
        options.disk = Arc::new(self.disk.clone());
        options
    }

    async fn look(&self) -> Result<Repository, RepositoryError> {
        Repository::open(self.options()).await
    }
}

fn component() -> String {
    format!(
        "targets/dji/{}.1.0.0.wasm",
        hex(&sha256(b"the first version"))
    )
}

#[tokio::test]
async fn a_repository_over_https_is_read_and_its_component_fetched() {
    let mut publisher = Publisher::with_one();
    publisher.rotate();
    let site = Site::new(publisher);
    let repository = site.look().await.unwrap();
    assert_eq!(repository.root_version(), 2);
    assert_eq!(
        repository.fetch("dji", "1.0.0").await.unwrap(),
        b"the first version"
    );
    for request in site.server.requests() {
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_server_nobody_vouches_for_is_not_read() {
    let site = Site::new(Publisher::with_one());
    let mut options = site.options();
    options.source =
        RepositorySource::https(&site.server.url(""), Some(tls::STRANGER_CA_PEM.into())).unwrap();
    let error = Repository::open(options).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Transport(why) if why.contains("certificate")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_out_of_order_does_not_hide_a_rotation() {
    let mut publisher = Publisher::with_one();
    publisher.rotate();
    let site = Site::new(publisher);
    let status = |status| Fault::Status {
        status,
        headers: Vec::new(),
        body: b"no".to_vec(),
    };
    site.server.fault("metadata/2.root.json", 1, status(503));
    let error = site.look().await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Transport(why) if why.contains("2.root.json") && why.contains("503")),
        "{error:?}"
    );
    assert_eq!(site.look().await.unwrap().root_version(), 2);
    // An object store's way to say that there is no third one.
    site.server.fault("metadata/3.root.json", 1, status(403));
    assert_eq!(site.look().await.unwrap().root_version(), 2);
}

#[tokio::test]
async fn a_file_that_is_cut_or_gone_is_told_and_the_next_look_succeeds() {
    let site = Site::new(Publisher::with_one());
    site.server
        .fault("metadata/timestamp.json", 1, Fault::CutAfter(10));
    let error = site.look().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Transport(_)), "{error:?}");
    let repository = site.look().await.unwrap();
    site.server.fault(&component(), 1, Fault::CutAfter(5));
    let error = repository.fetch("dji", "1.0.0").await.unwrap_err();
    assert!(matches!(error, RepositoryError::Transport(_)), "{error:?}");
    assert!(repository.fetch("dji", "1.0.0").await.is_ok());
    site.server.remove(&component());
    let error = repository.fetch("dji", "1.0.0").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Missing { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let site = Site::new(Publisher::with_one());
    // Always: on a slow machine the time is over before it is asked for.
    site.server
        .fault_always("metadata/timestamp.json", Fault::StallAfter(5));
    let mut options = site.options();
    options.open_within = Duration::from_millis(300);
    let error = Repository::open(options).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::TimedOut { .. }),
        "{error:?}"
    );
    site.server.heal("metadata/timestamp.json");
    let mut options = site.options();
    options.fetch_within = Duration::from_millis(300);
    let repository = Repository::open(options).await.unwrap();
    site.server.fault(&component(), 1, Fault::StallAfter(5));
    let error = repository.fetch("dji", "1.0.0").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::TimedOut { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_that_does_not_end_is_not_read_to_its_end() {
    let site = Site::new(Publisher::with_one());
    site.server.fault(
        "metadata/timestamp.json",
        1,
        Fault::Longer(64 * 1024 * 1024),
    );
    let error = site.look().await.unwrap_err();
    assert_eq!(
        error,
        RepositoryError::Oversize {
            what: "metadata/timestamp.json".into(),
            limit: 1024 * 1024
        }
    );
    let repository = site.look().await.unwrap();
    site.server
        .fault(&component(), 1, Fault::Longer(64 * 1024 * 1024));
    let error = repository.fetch("dji", "1.0.0").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Oversize { limit: 17, .. }),
        "{error:?}"
    );
    assert!(site.server.bytes_sent() < 64 * 1024 * 1024);
}

#[tokio::test]
async fn a_redirect_leads_neither_into_the_devices_networks_nor_to_plain_http() {
    let site = Site::new(Publisher::with_one());
    let inside = Files::start_tls();
    let plain = Files::start();
    for location in [inside.url("x"), plain.url("x")] {
        site.server.fault(
            "metadata/timestamp.json",
            1,
            Fault::Redirect {
                status: 302,
                location,
            },
        );
        let error = site.look().await.unwrap_err();
        assert!(matches!(error, RepositoryError::Transport(_)), "{error:?}");
    }
    assert!(inside.requests().is_empty() && plain.requests().is_empty());
    // On the server the operator named it may go where it likes.
    let timestamp = site.publisher.files["metadata/timestamp.json"].clone();
    site.server.put("elsewhere.json", timestamp);
    site.server.fault(
        "metadata/timestamp.json",
        1,
        Fault::Redirect {
            status: 302,
            location: site.server.url("elsewhere.json"),
        },
    );
    assert!(site.look().await.is_ok());
}

#[tokio::test]
async fn a_hostile_server_is_judged_like_a_hostile_stick() {
    let mut publisher = Publisher::with_one();
    let old = publisher.files["metadata/timestamp.json"].clone();
    publisher.publish();
    let site = Site::new(publisher);
    site.look().await.unwrap();
    site.server.put("metadata/timestamp.json", old);
    assert_eq!(
        site.look().await.unwrap_err(),
        RepositoryError::RolledBack {
            role: Role::Timestamp,
            seen: 2,
            offered: 1
        }
    );
}
