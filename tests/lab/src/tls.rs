//! Certificates for servers of the lab. Their keys are in the repository and known to everybody: they prove nothing to anybody and
//! are trusted only where a test says so. Valid for `localhost` and 127.0.0.1 until the year 2125.

/// The certificate authority to trust, PEM.
pub const CA_PEM: &str = include_str!("../data/tls/ca.pem");

/// Another authority, which signed nothing here, PEM.
pub const STRANGER_CA_PEM: &str = include_str!("../data/tls/stranger-ca.pem");

/// The servers' certificate, PEM.
pub const SERVER_PEM: &str = include_str!("../data/tls/server.pem");

/// Its key, PEM (PKCS #8).
pub const SERVER_KEY_PEM: &str = include_str!("../data/tls/server.key");
