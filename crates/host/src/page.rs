//! How an endpoint serves its page: one file, in which nothing runs but what it brings along.

use std::fmt::Write as _;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Response};

/// Stands in a page where a nonce belongs.
const NONCE: &str = "NONCE";

/// Stands in a page for what all pages look like, in front of what only this one has.
const STYLE: &str = "STYLE";

/// Whatever is answered is no page of another's, and no other type than it says.
const PROTECTION: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Adds the headers that keep an answer out of other pages.
pub fn protect(headers: &mut HeaderMap) {
    headers.extend(PROTECTION);
}

/// A page with a nonce of its own in the places of `NONCE`, and what all pages look like in that of `STYLE`.
///
/// # Errors
/// If the system has no random numbers.
pub fn page(text: &str) -> Result<Response<String>, getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    let nonce = random.iter().fold(String::new(), |mut text, byte| {
        // Writing to memory does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(text.replace(STYLE, include_str!("page.css")).replace(NONCE, &nonce));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // It is letters, digits and what stands above.
    headers.extend(HeaderValue::try_from(policy).ok().map(|policy| (CONTENT_SECURITY_POLICY, policy)));
    protect(headers);
    Ok(response)
}
