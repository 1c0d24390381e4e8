//! `[adapters.<name>]`, what they are granted, and where new versions of them come from.

use super::{Table, key};

pub(in crate::config) static REPOSITORY: Table = Table {
    path: "repositories.<name>",
    keys: &[
        key(
            "url",
            "URL",
            "-",
            "url = \"https://updates.example/adapters\"",
            "`https://` and the folder that holds `metadata/` and `targets/`, as `adapter publish` makes them. Without credentials.",
        ),
        key(
            "directory",
            "absolute path",
            "-",
            "directory = \"/media/usb/adapters\"",
            "Instead of `url`: the same folder on this device or on a medium. It may be missing while nothing is plugged in.",
        ),
        key(
            "root",
            "path",
            "required",
            "root = \"/etc/otahost/vendor.root.json\"",
            "The publisher's `N.root.json`, any version, which came with the firmware or by hand: whose signatures count.",
        ),
        key(
            "ca",
            "path",
            "-",
            "ca = \"/etc/otahost/updates-ca.pem\"",
            "PEM file of the authorities to trust for `url` instead of the system's.",
        ),
        key(
            "every",
            "time, 1s to 30d",
            "6h",
            "every = \"6h\"",
            "Pause between two looks; of a `directory` 10s. After a failure it is shorter: it doubles from 10s up to this, with jitter.",
        ),
    ],
};

pub(in crate::config) static ADAPTER: Table = Table {
    path: "adapters.<name>",
    keys: &[
        key(
            "component",
            "path",
            "<adapters_dir>/<name>.wasm",
            "component = \"dji.wasm\"",
            "The adapter, a WebAssembly component.",
        ),
        key(
            "config",
            "table",
            "{}",
            "config = { gateway_sn = \"NM1923221021\" }",
            "The adapter's own configuration, handed to it as JSON.",
        ),
        key(
            "grants",
            "table",
            "-",
            "[adapters.dji.grants]",
            "What it may do; see `adapters.<name>.grants`. What is not granted is refused.",
        ),
        key(
            "repository",
            "name of a repository",
            "-",
            "repository = \"vendor\"",
            "Where new versions of it are looked for and taken from by themselves. Without it only the operator installs any.",
        ),
        key(
            "repository_name",
            "name",
            "<name>",
            "repository_name = \"dji\"",
            "What the adapter is called in its repository, where that is another name than here.",
        ),
    ],
};

pub(in crate::config) static GRANTS: Table = Table {
    path: "adapters.<name>.grants",
    keys: &[
        key(
            "links",
            "table of tables",
            "-",
            "links.cloud.subscribe = [\"thing/+\"]",
            "Topics, routes, requests and directories by link; see `adapters.<name>.grants.links.<link>`.",
        ),
        key(
            "download",
            "list of URLs",
            "[]",
            "download = [\"https://files.example/firmware/\"]",
            "Where artifacts may come from: `http` or `https` up to a folder. Scheme, host and port must be equal, the path counts by whole segments.",
        ),
        key(
            "targets",
            "list of names",
            "[]",
            "targets = [\"dock\"]",
            "Targets it sees and may update.",
        ),
    ],
};

pub(in crate::config) static LINK_GRANT: Table = Table {
    path: "adapters.<name>.grants.links.<link>",
    keys: &[
        key(
            "subscribe",
            "list of topic filters",
            "[]",
            "subscribe = [\"thing/product/+/services\"]",
            "Filters it may subscribe; `+` and `#` as MQTT has them.",
        ),
        key(
            "publish",
            "list of topic filters",
            "[]",
            "publish = [\"thing/product/#\"]",
            "Filters that cover the topics it may publish to.",
        ),
        key(
            "serve",
            "list of routes",
            "[]",
            "serve = [\"POST /updateDevice\"]",
            "On an `http_server` link: method and path of what it may serve; `*` stands for one segment.",
        ),
        key(
            "call",
            "list of tables",
            "[]",
            "call = [{ method = \"GET\", path = \"/firmware/latest/*\" }]",
            "On an `http_client` link: the requests it may send; see below.",
        ),
        key(
            "files",
            "list of directories",
            "[]",
            "files = [\"/\"]",
            "On an `ftps` or `http_client` link: directories it may list and whose files it may install. They count from the link's own directory or URL.",
        ),
    ],
};
