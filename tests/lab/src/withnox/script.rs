//! What can be ordered to happen with a request.

use super::wire::Answer;

/// What happens with one request in place of, or around, what the cloud does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripted {
    /// This is answered, and nothing else is done.
    Answer {
        /// HTTP status.
        status: u16,
        /// Headers beside type and length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// As ever, for a request that is to be let through between others.
    Pass,
    /// It is done, and the connection ends without an answer.
    Lost,
    /// It is done, and the answer waits for [`super::Withnox::release`].
    Hold,
    /// The access tokens' time is over just before this request.
    Expire,
}

impl Scripted {
    fn answer(status: u16, kind: &str, body: &str) -> Self {
        Scripted::Answer {
            status,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    /// An error as the vendor's page has it.
    #[must_use]
    pub fn error(status: u16, detail: &str) -> Self {
        let body = serde_json::json!({ "detail": detail }).to_string();
        Self::answer(status, "application/json", &body)
    }

    /// A gateway's page.
    #[must_use]
    pub fn html_502() -> Self {
        Self::answer(
            502,
            "text/html",
            "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        )
    }

    /// FastAPI's answer to a request it cannot read: `detail` is a list.
    #[must_use]
    pub fn validation_422() -> Self {
        Self::answer(
            422,
            "application/json",
            r#"{"detail":[{"type":"int_parsing","loc":["path","device_id"],"msg":"Input should be a valid integer","input":"x"}]}"#,
        )
    }

    /// 429 with `Retry-After` in seconds.
    #[must_use]
    pub fn too_many(seconds: u64) -> Self {
        Scripted::Answer {
            status: 429,
            headers: vec![("Retry-After".to_owned(), seconds.to_string())],
            body: br#"{"detail":"Too many requests"}"#.to_vec(),
        }
    }

    /// 200, and an object store's error in it.
    #[must_use]
    pub fn xml_at_200() -> Self {
        Self::answer(
            200,
            "application/xml",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>We encountered an internal error. \
             Please try again.</Message></Error>",
        )
    }

    /// 200, and JSON that breaks off.
    #[must_use]
    pub fn malformed_json() -> Self {
        Self::answer(200, "application/json", r#"[{"id": 11, "firmware_id": "#)
    }

    /// A redirect to somewhere.
    #[must_use]
    pub fn redirect(status: u16, location: &str) -> Self {
        Scripted::Answer {
            status,
            headers: vec![("Location".to_owned(), location.to_owned())],
            body: Vec::new(),
        }
    }

    pub(super) fn to_answer(&self) -> Option<Answer> {
        match self {
            Scripted::Answer {
                status,
                headers,
                body,
            } => Some(Answer {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
            }),
            Scripted::Pass | Scripted::Lost | Scripted::Hold | Scripted::Expire => None,
        }
    }
}
