//! Shows what a function gets: its environment, and the request, as text.
//!
//! Whoever may call it reads that, so it opens no secret, and of what is likely to be one it tells only the length.

use std::fmt::{self, Write};

use fawn::{Request, Result};

/// What stands in the name of a variable or a header whose value is nobody's business.
const SECRET_WORDS: [&str; 12] = [
    "AUTH",
    "COOKIE",
    "CREDENTIAL",
    "DSN",
    "JWT",
    "KEY",
    "PASS",
    "PRIVATE",
    "PWD",
    "SECRET",
    "SESSION",
    "TOKEN",
];

/// The longest body that is accepted, in bytes: only its length is told.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Answers with the variables and the request, one a line.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<String> {
    let variables = std::env::vars_os();
    let mut variables: Vec<_> = variables.map(|(name, value)| (lossy(&name), lossy(&value))).collect();
    variables.sort_unstable();
    let (head, body) = request.into_parts();
    let length = body.bytes_up_to(MAX_BODY_BYTES).await?.len();

    let mut text = String::new();
    for (name, value) in &variables {
        line(&mut text, name, "=", value)?;
    }
    writeln!(text, "\n{} {}", head.method, head.uri)?;
    for (name, value) in &head.headers {
        line(&mut text, name.as_str(), ": ", &String::from_utf8_lossy(value.as_bytes()))?;
    }
    writeln!(text, "\n{length} bytes")?;
    Ok(text)
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn line(text: &mut String, name: &str, between: &str, value: &str) -> fmt::Result {
    let name_tells = SECRET_WORDS.iter().any(|word| name.to_uppercase().contains(word));
    if name_tells || names_a_user(value) {
        writeln!(text, "{name}{between}({} bytes, not shown)", value.len())
    } else {
        writeln!(text, "{name}{between}{value}")
    }
}

/// Whether there is an address with a user in it, who may have a password: `postgres://user:password@host/`. A password
/// that is not encoded as it should be may hold anything, so all up to an `@` counts.
fn names_a_user(value: &str) -> bool {
    value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::testing;

    #[test]
    fn shows_environment_and_request() {
        let request =
            Request::post("/a?b=c").header("x-d", "e").header("authorization", "Basic Zm9vOmJhcg==");
        let answer = testing::call(handle, request.body("some text").unwrap());
        let text = str::from_utf8(answer.body()).unwrap();
        assert!(text.contains("CARGO_PKG_NAME=env\n"), "{text}");
        assert!(text.contains("\n\nPOST /a?b=c\n"), "{text}");
        assert!(text.contains("x-d: e\n"), "{text}");
        assert!(text.ends_with("\n9 bytes\n"), "{text}");
        assert!(text.contains("authorization: (18 bytes, not shown)\n"), "{text}");
    }

    #[test]
    fn tells_no_secret() {
        let mut text = String::new();
        for name in [
            "api_key",
            "DB_PASSWORD",
            "DB_PASS",
            "MYSQL_PWD",
            "SENTRY_DSN",
            "jwt",
            "PHP_SESSION_ID",
            "private",
            "Set-Cookie",
            "GITHUB_TOKEN",
        ] {
            line(&mut text, name, "=", "hunter2").unwrap();
        }
        for value in [
            "postgres://user:hunter2@host/db",
            "a=b c://hunter2@d",
            "redis://:hunter2/@host",
            "a://b,c://hunter2@d",
        ] {
            line(&mut text, "URL", "=", value).unwrap();
        }
        assert!(text.contains("api_key=(7 bytes, not shown)\n") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("URL=(31 bytes, not shown)\n"), "{text}");
    }

    #[test]
    fn shows_what_is_no_secret() {
        let mut text = String::new();
        for (name, value) in [("URL", "https://example.com/a"), ("MAIL", "ada@example.com")] {
            line(&mut text, name, "=", value).unwrap();
        }
        assert_eq!(text, "URL=https://example.com/a\nMAIL=ada@example.com\n");
    }

    #[test]
    fn refuses_what_is_too_long() {
        let request = Request::post("/").body(vec![0; MAX_BODY_BYTES + 1]).unwrap();
        assert_eq!(testing::call(handle, request).status(), 413);
    }
}
