//! A handler that does all that the SDK is for, route by route.

use std::error::Error;

use fawn::{
    Body, FromRequest, IntoResponse, Json, Request, Response, Result,
    http::StatusCode,
    log::{debug, info},
};
use futures_lite::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

#[fawn::handler]
async fn handle(request: Request) -> Result<Response> {
    debug!("called at {}", request.uri().path());
    Ok(match request.uri().path() {
        "/json" => greet(Json::from_request(request).await?).into_response(),
        "/secret" => {
            let secret = fawn::secret(&request.into_body().text().await?)?;
            format!("{} letters", secret.len()).into_response()
        }
        "/call" => fawn::call(&request.into_body().text().await?, "from a function").await?,
        "/fetch" => fawn::fetch(Request::get(request.into_body().text().await?).body(())?).await?,
        "/echo" => Response::new(request.into_body()),
        "/shout" => {
            let shouted = request.into_body().map(|piece| piece.map(|piece| piece.to_ascii_uppercase()));
            Response::new(Body::from_stream(shouted))
        }
        "/count" => Response::new(Body::from_stream(lines(1000))),
        "/broken" => {
            let end = stream::once(Err("half way".into()));
            // More than is sent in one piece when a function has finished.
            Response::new(Body::from_stream(lines(100_000).chain(end)))
        }
        "/fail" => {
            let text = request.into_body().text().await?;
            info!("asked to fail: {text}");
            text.parse::<u32>()?.to_string().into_response()
        }
        "/panic" => panic!("on purpose\nINFO forged"),
        "/header" => Response::builder().header("connection", "close").body(Body::empty())?,
        _ => StatusCode::NOT_FOUND.into_response(),
    })
}

/// So many lines, one by one.
fn lines(count: u32) -> impl Stream<Item = Result<String, Box<dyn Error + Send + Sync>>> + Send {
    stream::iter((0..count).map(|number| Ok(format!("{number}\n"))))
}

#[derive(Deserialize)]
struct Person {
    name: String,
    #[serde(default)]
    friends: Vec<Person>,
}

#[derive(Serialize)]
struct Greeting {
    greeting: String,
}

fn greet(Json(Person { name, friends }): Json<Person>) -> Json<Greeting> {
    let more = if friends.is_empty() { "" } else { " and friends" };
    Json(Greeting { greeting: format!("Hello, {name}{more}!") })
}
