//! Greets whom the query names: `/function/hello?name=Ada`.

use fawn::{Error, Request, Result};
use serde::Deserialize;

/// Longer ones, in characters, are none.
const MAX_NAME_CHARS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default = "everybody")]
    name: String,
}

fn everybody() -> String {
    "world".into()
}

/// Answers with a greeting.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<String> {
    let Query { name } = store::query(&request)?;
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(Error::bad_request(format!("`name` has more than {MAX_NAME_CHARS} characters")));
    }
    Ok(format!("Hello, {name}!\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::{Bytes, Response, testing};

    fn get(uri: &str) -> Response<Bytes> {
        testing::call(handle, Request::get(uri).body(()).unwrap())
    }

    #[test]
    fn greets() {
        assert_eq!(get("/?name=Ada").body(), "Hello, Ada!\n");
        assert_eq!(get("/").body(), "Hello, world!\n");
        assert_eq!(get("/?name=Ada").headers()["content-type"], "text/plain; charset=utf-8");
    }

    #[test]
    fn refuses_names_that_are_none() {
        assert_eq!(get(&format!("/?name={}", "%C3%BC".repeat(100))).status(), 200);
        assert_eq!(get(&format!("/?name={}", "%C3%BC".repeat(101))).status(), 400);
        assert_eq!(get("/?nmae=Ada").status(), 400);
    }
}
