//! What the store's functions share: a typed query. Not a framework, and no function of the store needs more of it.

use fawn::{Error, Request, Result};
use serde::de::DeserializeOwned;

/// The query of a request (`?width=200&format=png`), as the fields of a struct.
///
/// # Errors
/// A 400 that names the parameter, and says what is wrong with it.
pub fn query<T: DeserializeOwned>(request: &Request) -> Result<T> {
    let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
        .map_err(|error| Error::bad_request(format!("the query is not what is wanted: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        name: Option<String>,
        width: Option<u32>,
    }

    fn read(uri: &str) -> Result<Wanted> {
        query(&Request::get(uri).body(().into()).unwrap())
    }

    #[test]
    fn reads_what_is_encoded() {
        let wanted = read("/?name=J%C3%BCrgen+K&width=20").unwrap();
        assert_eq!(wanted.name.as_deref(), Some("Jürgen K"));
        assert_eq!(wanted.width, Some(20));
        assert!(read("/").unwrap().name.is_none());
    }

    #[test]
    fn names_what_is_wrong() {
        for (uri, named) in [("/?width=x", "width"), ("/?widht=1", "`widht`"), ("/?name=a&name=b", "`name`")]
        {
            let error = read(uri).unwrap_err();
            assert_eq!(error.status(), 400, "{uri}");
            assert!(error.text().contains(named), "{uri}: {}", error.text());
        }
    }
}
