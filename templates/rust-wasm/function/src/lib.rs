use fawn::{Request, Response, Result};

#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let text = request.into_body().text().await?;
    let answer = format!("Hello! You said: {text}\n");
    Ok(Response::builder().header("content-type", "text/plain; charset=utf-8").body(answer.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::testing;

    #[test]
    fn says_what_was_said() {
        let answer = testing::call(handle, Request::post("/").body("some text").unwrap());
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body(), "Hello! You said: some text\n");
    }
}
