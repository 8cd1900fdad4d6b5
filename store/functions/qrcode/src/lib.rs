//! The body, or `?text=`, as a QR code: PNG, or SVG where `?format=svg` or `Accept` says so.

use fawn::{
    Bytes, Error, Request, Response, Result,
    http::{HeaderMap, StatusCode, header},
};
use image::{ExtendedColorType, ImageEncoder, Luma, codecs::png::PngEncoder};
use qr::{QrCode, render::svg, types::QrError};
use serde::Deserialize;

/// What fits into the largest code at the level of error correction that is used here, in bytes.
const MAX_TEXT_BYTES: usize = 2331;
/// How wide a code may be, in pixels.
const SIZES: std::ops::RangeInclusive<u32> = 64..=2048;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    text: Option<String>,
    format: Option<Format>,
    #[serde(default = "usual_size")]
    size: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Png,
    Svg,
}

fn usual_size() -> u32 {
    256
}

/// Answers with the picture.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let Query { text, format, size } = store::query(&request)?;
    if !SIZES.contains(&size) {
        let (least, most) = (SIZES.start(), SIZES.end());
        return Err(Error::bad_request(format!("`size` is not between {least} and {most} pixels")));
    }
    let format = format.unwrap_or_else(|| accepted(request.headers()));
    let text = match text {
        Some(text) => text.into(),
        None => request.into_body().bytes_up_to(MAX_TEXT_BYTES).await?,
    };
    let code = code(&text)?;
    let (kind, picture) = match format {
        Format::Png => ("image/png", png(&code, size)?.into()),
        Format::Svg => ("image/svg+xml", svg(&code, size).into()),
    };
    Ok(Response::builder().header(header::CONTENT_TYPE, kind).header(header::VARY, "accept").body(picture)?)
}

/// PNG, which everything reads, unless SVG is asked for.
fn accepted(headers: &HeaderMap) -> Format {
    let accepts =
        |kind: &str| headers.get_all(header::ACCEPT).iter().any(|value| contains(value.as_bytes(), kind));
    if accepts("image/svg+xml") && !accepts("image/png") { Format::Svg } else { Format::Png }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn code(text: &Bytes) -> Result<QrCode> {
    if text.is_empty() {
        return Err(Error::bad_request("there is nothing to encode: send it as the body, or as `?text=`"));
    }
    QrCode::new(text).map_err(|error| match error {
        QrError::DataTooLong => Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the text does not fit into a QR code, which holds {MAX_TEXT_BYTES} bytes"),
        ),
        other => other.into(),
    })
}

/// At least one pixel for each square, so a large code may be larger than was asked for.
fn png(code: &QrCode, size: u32) -> Result<Vec<u8>> {
    let pixels = code.render::<Luma<u8>>().max_dimensions(size, size).build();
    let mut png = Vec::new();
    let (width, height) = pixels.dimensions();
    PngEncoder::new(&mut png).write_image(pixels.as_raw(), width, height, ExtendedColorType::L8)?;
    Ok(png)
}

fn svg(code: &QrCode, size: u32) -> String {
    code.render::<svg::Color<'_>>().min_dimensions(size, size).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::{Body, testing};

    fn post(uri: &str, accept: &str, body: impl Into<Body>) -> Response<Bytes> {
        testing::call(handle, Request::post(uri).header("accept", accept).body(body).unwrap())
    }

    #[test]
    fn draws_png() {
        let answer = post("/", "*/*", "https://example.com/");
        assert_eq!(answer.headers()["content-type"], "image/png");
        let picture = image::load_from_memory(answer.body()).unwrap();
        assert!((128..=256).contains(&picture.width()), "{}", picture.width());
        assert_eq!(
            answer.body(),
            testing::call(handle, Request::get("/?text=https://example.com/").body(()).unwrap()).body()
        );
    }

    #[test]
    fn draws_svg_where_that_is_asked_for() {
        for answer in [post("/?format=svg", "*/*", "x"), post("/", "image/svg+xml", "x")] {
            assert_eq!(answer.headers()["content-type"], "image/svg+xml");
            assert!(answer.body().starts_with(b"<?xml"));
        }
        assert_eq!(post("/", "image/svg+xml,image/png", "x").headers()["content-type"], "image/png");
    }

    #[test]
    fn takes_as_much_as_fits() {
        assert_eq!(post("/?size=64", "*/*", vec![0xff; MAX_TEXT_BYTES]).status(), 200);
        assert_eq!(post("/", "*/*", vec![0xff; MAX_TEXT_BYTES + 1]).status(), 413);
        let text = format!("/?text={}", "x".repeat(MAX_TEXT_BYTES + 1));
        assert_eq!(post(&text, "*/*", ()).status(), 413);
    }

    #[test]
    fn says_what_is_wrong() {
        for (uri, said) in [("/", "nothing to encode"), ("/?size=0", "`size`"), ("/?format=gif", "`svg`")] {
            let answer = post(uri, "*/*", ());
            assert_eq!(answer.status(), 400, "{uri}");
            assert!(str::from_utf8(answer.body()).unwrap().contains(said), "{uri}: {:?}", answer.body());
        }
    }
}
