//! The tables below `[links.<name>]` for the kinds beside `mqtt`.

use super::{Key, Table, key};

const CA: Key = key(
    "ca",
    "path",
    "-",
    "ca = \"/etc/otahost/server-ca.pem\"",
    "PEM file of the certificate authorities to trust instead of the system's.",
);
const PIN: Key = key(
    "pin",
    "`sha256:` and hex",
    "-",
    "pin = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
    "Instead of `ca`: trust exactly the certificate whose DER has this SHA-256, whatever its name, issuer and dates.",
);
const CONNECT_TIMEOUT: Key = key(
    "connect_timeout",
    "time, 1s to 1h",
    "10s",
    "connect_timeout = \"10s\"",
    "Limit for the look-up of the name, and for TCP and TLS together.",
);
const IDLE_TIMEOUT: Key = key(
    "idle_timeout",
    "time, 1s to 1h",
    "30s",
    "idle_timeout = \"30s\"",
    "A connection on which nothing came for so long has failed.",
);

pub(in crate::config) static HTTP_SERVER: Table = Table {
    path: "links.<name>, kind http_server",
    keys: &[
        key(
            "kind",
            "`\"http_server\"`",
            "required",
            "kind = \"http_server\"",
            "Takes HTTP requests for the adapters that serve routes on it.",
        ),
        key(
            "listen",
            "address and port",
            "required",
            "listen = \"127.0.0.1:8080\"",
            "Where to listen. Behind another server on the device: loopback, and that server passes the requests on, `Authorization` included.",
        ),
        key(
            "tls",
            "table",
            "-",
            "tls = { certificate = \"/etc/otahost/kit.pem\", key = { file = \"/etc/otahost/secrets/kit-key\" } }",
            "TLS 1.2 or 1.3 with this identity; without it plain HTTP.",
        ),
        key(
            "users",
            "table of secrets",
            "-",
            "users = { centre = { file = \"/etc/otahost/secrets/centre\" } }",
            "HTTP Basic: who may call, each with a password. The adapter sees the name and nothing else. Required unless `anonymous`.",
        ),
        key(
            "anonymous",
            "`true` or `false`",
            "false",
            "anonymous = true",
            "Lets everybody call who reaches the port.",
        ),
        key(
            "realm",
            "string",
            "otahost",
            "realm = \"otahost\"",
            "What the 401 answer names.",
        ),
        key(
            "answer_within",
            "time, 1s to 10m",
            "15s",
            "answer_within = \"15s\"",
            "When the adapter has not answered by then, the agent answers 504.",
        ),
        key(
            "per_minute",
            "number, 1 to 100000",
            "120",
            "per_minute = 120",
            "Requests a minute from one address; more are answered 429.",
        ),
        key(
            "parallel",
            "number, 1 to 1000",
            "16",
            "parallel = 16",
            "Requests that may wait for their answer at once; more are answered 503.",
        ),
    ],
};

pub(in crate::config) static IDENTITY: Table = Table {
    path: "links.<name>.tls",
    keys: &[
        key(
            "certificate",
            "path",
            "required",
            "certificate = \"/etc/otahost/kit.pem\"",
            "PEM file with the certificate and what chains it to its authority.",
        ),
        key(
            "key",
            "`{ file }`",
            "required",
            "key = { file = \"/etc/otahost/secrets/kit-key\" }",
            "PEM file with its private key; mode 0600.",
        ),
    ],
};

pub(in crate::config) static HTTP_CLIENT: Table = Table {
    path: "links.<name>, kind http_client",
    keys: &[
        key(
            "kind",
            "`\"http_client\"`",
            "required",
            "kind = \"http_client\"",
            "Sends small requests for adapters and fetches artifacts, with credentials that no adapter sees.",
        ),
        key(
            "url",
            "URL",
            "required",
            "url = \"https://api.example\"",
            "Base of every request: `http://` or `https://`, host, perhaps port and path. The credentials go to this scheme, host and port only.",
        ),
        CA,
        PIN,
        key(
            "auth",
            "table",
            "-",
            "auth = { bearer = \"access_token\" }",
            "Credentials that are added to every request; see `links.<name>.auth`.",
        ),
        key(
            "secrets",
            "table of secrets",
            "-",
            "secrets = { account = { file = \"/etc/otahost/secrets/account\" } }",
            "Secrets that adapters may name in placeholders where their grants say so. Those that come with answers are kept in the journal beside them.",
        ),
        key(
            "redirects",
            "list of URLs",
            "[]",
            "redirects = [\"https://store.example/\"]",
            "Where a redirect of an artifact may lead although the address is not public. Public addresses need no entry.",
        ),
        CONNECT_TIMEOUT,
        IDLE_TIMEOUT,
    ],
};

pub(in crate::config) static AUTH: Table = Table {
    path: "links.<name>.auth",
    keys: &[
        key(
            "bearer",
            "name of a secret",
            "-",
            "bearer = \"access_token\"",
            "`Authorization: Bearer` with this secret.",
        ),
        key(
            "basic",
            "table",
            "-",
            "basic = { username = \"gw-7\", password = { file = \"/etc/otahost/secrets/api\" } }",
            "`Authorization: Basic` with `username` and `password`.",
        ),
    ],
};

pub(in crate::config) static BASIC: Table = Table {
    path: "links.<name>.auth.basic",
    keys: &[
        key(
            "username",
            "string or secret",
            "required",
            "username = \"gw-7\"",
            "User name.",
        ),
        key(
            "password",
            "secret",
            "required",
            "password = { file = \"/etc/otahost/secrets/api\" }",
            "Password.",
        ),
    ],
};

pub(in crate::config) static FTPS: Table = Table {
    path: "links.<name>, kind ftps",
    keys: &[
        key(
            "kind",
            "`\"ftps\"`",
            "required",
            "kind = \"ftps\"",
            "Lists and reads files over explicit FTPS; never without TLS.",
        ),
        key(
            "host",
            "host name or address",
            "required",
            "host = \"updates.example\"",
            "The server.",
        ),
        key(
            "port",
            "number, 1 to 65535",
            "21",
            "port = 21",
            "Its control port.",
        ),
        key(
            "username",
            "string or secret",
            "required",
            "username = { file = \"/etc/otahost/secrets/ftp-user\" }",
            "User name; sent after TLS only.",
        ),
        key(
            "password",
            "secret",
            "required",
            "password = { file = \"/etc/otahost/secrets/ftp\" }",
            "Password; sent after TLS only.",
        ),
        key(
            "directory",
            "absolute path",
            "/",
            "directory = \"/kits/model-a\"",
            "The link is confined to this directory of the server; all paths on it count from here.",
        ),
        CA,
        PIN,
        CONNECT_TIMEOUT,
        IDLE_TIMEOUT,
    ],
};

pub(in crate::config) static SECRET: Table = Table {
    path: "secret",
    keys: &[
        key(
            "file",
            "path",
            "-",
            "file = \"/etc/otahost/secrets/cloud\"",
            "File that holds the value; one line, at most 4 KiB. Give it mode 0600.",
        ),
        key(
            "env",
            "name",
            "-",
            "env = \"CLOUD_PASSWORD\"",
            "Environment variable that holds the value.",
        ),
        key(
            "credential",
            "name",
            "-",
            "credential = \"cloud\"",
            "systemd credential (`LoadCredential=cloud:…` or `LoadCredentialEncrypted=`) that holds the value.",
        ),
    ],
};

pub(in crate::config) static CALL_GRANT: Table = Table {
    path: "adapters.<name>.grants.links.<link>.call",
    keys: &[
        key(
            "method",
            "string",
            "required",
            "method = \"POST\"",
            "HTTP method.",
        ),
        key(
            "path",
            "path",
            "required",
            "path = \"/auth/refresh-token\"",
            "Path without query; `*` stands for one segment.",
        ),
        key(
            "secrets",
            "table",
            "-",
            "secrets = { refresh_token = \"body\" }",
            "Secrets it may have filled in, each with the one place: `path`, `query`, `header` or `body`.",
        ),
        key(
            "capture",
            "table",
            "-",
            "capture = { access_token = \"/access_token\" }",
            "Secrets it may have taken from the answer, each with the JSON pointer to it.",
        ),
    ],
};
