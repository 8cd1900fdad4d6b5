//! The SHA-512 of the body, as `sha512sum` prints it. The body has any length: it is read piece by piece, and never
//! held as a whole.

use fawn::{Bytes, Request, Result};
use sha2::{Digest, Sha512};

/// Answers with the hash in hexadecimal digits, and the name that `sha512sum` has for its standard input.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<String> {
    let (mut body, mut hash) = (request.into_body(), Sha512::new());
    while let Some(piece) = body.chunk().await? {
        hash.update(&piece);
    }
    Ok(format!("{:x}  -\n", Bytes::copy_from_slice(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::{Body, testing};

    fn sum(body: impl Into<Body>) -> String {
        let answer = testing::call(handle, Request::post("/").body(body).unwrap());
        assert_eq!(answer.status(), 200);
        String::from_utf8(answer.into_body().into()).unwrap()
    }

    /// From FIPS 180-4's examples.
    #[test]
    fn is_the_standards() {
        let abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(sum("abc"), format!("{abc}  -\n"));
        assert!(sum(()).starts_with("cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"));
    }
}
