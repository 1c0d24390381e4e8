//! The object store's door: a signed address opens it, alone and in time.

use super::book::Book;
use crate::files::{Fault, Request};

/// Refuses a request, or lets it in.
pub(super) fn look(book: &mut Book, request: &Request) -> Option<Fault> {
    let query = request.query.as_deref().unwrap_or_default();
    let value = |name: &str| {
        let mut parts = query.split('&').filter_map(|part| part.split_once('='));
        parts.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let signature = value("X-Amz-Signature");
    if request.header("authorization").is_some() {
        let why = "the store got an Authorization header".to_owned();
        book.violations.push(why);
        if signature.is_some() {
            return refuse(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the \
                 Authorization header should be specified",
                "<ArgumentName>Authorization</ArgumentName>",
            );
        }
        return refuse(
            403,
            "InvalidAccessKeyId",
            "The access key does not exist",
            "",
        );
    }
    let Some(signature) = signature else {
        return refuse(403, "AccessDenied", "Access Denied", "");
    };
    let name = request.path.strip_prefix("/public/").unwrap_or_default();
    match book.signed.get(signature) {
        // An address is signed for one method and one file.
        Some(signed) if signed.name == name && request.method == "GET" => {
            if signed.expired {
                let times =
                    "<X-Amz-Expires>3600</X-Amz-Expires><Expires>2025-02-28T07:05:31Z</Expires>";
                refuse(403, "AccessDenied", "Request has expired", times)
            } else {
                None
            }
        }
        // The real one shows what it signed, query included.
        _ => refuse(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            &format!(
                "<SignatureProvided>{signature}</SignatureProvided><CanonicalRequest>{} {} {query}</CanonicalRequest>",
                request.method, request.path
            ),
        ),
    }
}

fn refuse(status: u16, code: &str, message: &str, more: &str) -> Option<Fault> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}\
         <RequestId>LAB</RequestId></Error>"
    );
    Some(Fault::Status {
        status,
        headers: vec![("Content-Type".to_owned(), "application/xml".to_owned())],
        body: body.into_bytes(),
    })
}
