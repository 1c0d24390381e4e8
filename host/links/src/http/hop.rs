//! Where a redirect leads, and whether one may go there at all. Pure; the grant and the addresses are judged by the caller.

use url::Url;

use super::{HttpError, place};

/// Rules for every URL, the first one included.
pub(super) fn check_url(url: &Url) -> Result<(), HttpError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(HttpError::Forbidden(format!(
            "{}: only http and https can be fetched",
            place(url)
        )));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(HttpError::Forbidden(
            "a URL without a host cannot be fetched".into(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HttpError::Forbidden(format!(
            "{}: the URL carries credentials; artifacts are fetched without any",
            place(url)
        )));
    }
    Ok(())
}

/// The next URL of a redirect.
pub(crate) fn next_url(current: &Url, location: &str) -> Result<Url, HttpError> {
    let mut next = current.join(location).map_err(|error| {
        HttpError::Broken(format!(
            "{}: redirects to something that is no URL: {error}",
            place(current)
        ))
    })?;
    next.set_fragment(None);
    check_url(&next)?;
    if current.scheme() == "https" && next.scheme() == "http" {
        return Err(HttpError::Forbidden(format!(
            "{}: redirects from https to http ({}), which is never followed",
            place(current),
            place(&next)
        )));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn next(current: &str, location: &str) -> Result<String, HttpError> {
        next_url(&current.parse().unwrap(), location).map(String::from)
    }

    #[test]
    fn redirects_are_resolved_against_the_current_url() {
        for (current, location, expected) in [
            ("http://a/x/y?q=1", "/z", "http://a/z"),
            ("http://a/x/y", "z?sig=1", "http://a/x/z?sig=1"),
            ("http://a/x", "http://b:8/c#frag", "http://b:8/c"),
            ("http://a/x", "https://a/x", "https://a/x"),
            ("https://a/x", "//b/c", "https://b/c"),
        ] {
            assert_eq!(next(current, location).unwrap(), expected);
        }
    }

    #[test]
    fn a_downgrade_another_scheme_and_credentials_are_forbidden_and_the_query_is_not_shown() {
        for (current, location) in [
            ("https://a/x", "http://a/y?secret=1"),
            ("http://a/x", "file:///etc/passwd?secret=1"),
            ("http://a/x", "ftp://b/c?secret=1"),
            ("http://a/x", "http://secret:secret@b/c"),
            ("http://a/x?secret=1", "data:text/plain,secret=1"),
        ] {
            let error = next(current, location).unwrap_err();
            assert!(matches!(error, HttpError::Forbidden(_)), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(
            next("http://a/x", "http://[").unwrap_err(),
            HttpError::Broken(_)
        ));
    }
}
