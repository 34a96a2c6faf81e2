//! The token that an exposed web-app asks for.

use std::fmt;

/// The shortest token accepted, in bytes: a shorter one can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// What clients have to present as `Authorization: Bearer …` (RFC 6750) where a web-app is exposed.
#[derive(Clone)]
pub struct Token(Box<str>);

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has at least {MIN_TOKEN_BYTES} bytes of visible ASCII, and nothing else")]
pub struct TokenError;

impl Token {
    /// Takes the text of a token file; white space around it does not count.
    ///
    /// # Errors
    ///
    /// It is too short, or has characters that do not belong into a header.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let fits = text.len() >= MIN_TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into())).ok_or(TokenError)
    }

    /// The value of an `Authorization` header that presents it.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether an `Authorization` header presents this token. Takes as long for a wrong one as for the right one.
    pub(crate) fn is_presented(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, presented)) = authorization.and_then(|value| value.split_at_checked("Bearer ".len())) else {
            return false;
        };
        let differs = |differs, (a, b): (&u8, &u8)| differs | (a ^ b);
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && presented.len() == self.0.len()
            && presented.iter().zip(self.0.as_bytes()).fold(0, differs) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_as_a_bearer_is_let_in() {
        let token = Token::new("\u{feff}  0123456789abcdef\n").unwrap();
        assert!(token.is_presented(Some(b"Bearer 0123456789abcdef")));
        assert!(token.is_presented(Some(b"bearer 0123456789abcdef")));
        for wrong in ["Bearer 0123456789abcdeX", "Bearer 0123456789abcde", "0123456789abcdef", "Bearer ", "B", ""] {
            assert!(!token.is_presented(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!token.is_presented(None));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn what_can_be_guessed_or_cannot_be_sent_is_no_token() {
        assert!(Token::new("short").is_err());
        assert!(Token::new("0123456789 abcdef").is_err());
    }
}
