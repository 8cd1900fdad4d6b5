//! A PNG or JPEG made smaller, so that it fits into `?width=` and `?height=`, and turned the right way up. It keeps its
//! proportions, is never made larger, and loses what a camera noted in it.

use std::io::Cursor;

use fawn::{
    Bytes, Error, Request, Response, Result,
    http::{StatusCode, header},
};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Rgba, RgbaImage, imageops,
    metadata::Orientation,
};
use serde::Deserialize;

/// The longest file, in bytes.
const MAX_FILE_BYTES: usize = 8 << 20;
/// The most that its pixels may take in memory, in bytes: 12 million of a usual photo. Whatever is done with them fits
/// into the 128 MiB that an instance has by default.
const MAX_PIXEL_BYTES: u64 = 36 << 20;
/// The most that reading a PNG may take besides, in bytes, such as for what is noted in it, which may unpack to a thousand
/// times its length. All that a file holds as it is fits.
const MAX_NOTED_BYTES: u64 = 16 << 20;
/// The most that the pixels of the answer may take, in bytes: 5 million of a usual photo.
const MAX_MADE_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    width: Option<u32>,
    height: Option<u32>,
    format: Option<Format>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[serde(alias = "jpg")]
    Jpeg,
    Png,
}

/// Answers with the picture, in the format that it came in unless `?format=` names another.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let Query { width, height, format } = store::query(&request)?;
    if (width, height) == (None, None) && format.is_none() {
        return Err(Error::bad_request("say how wide or high, as in ?width=200, or which ?format="));
    }
    if width == Some(0) || height == Some(0) {
        return Err(Error::bad_request("`width` and `height` are at least 1"));
    }
    let file = request.into_body().bytes_up_to(MAX_FILE_BYTES).await?;
    let (came, picture, orientation) = decode(file)?;
    let picture = fit(picture, orientation, width.unwrap_or(u32::MAX), height.unwrap_or(u32::MAX));
    if picture.as_bytes().len() > MAX_MADE_BYTES {
        let (width, height) = (picture.width(), picture.height());
        let text = format!(
            "a picture of {width} times {height} pixels is too large to make: ask for less `width` or `height`"
        );
        return Err(Error::bad_request(text));
    }
    let (kind, file) = encode(picture, format.unwrap_or(came))?;
    Ok(Response::builder().header(header::CONTENT_TYPE, kind).body(file.into())?)
}

fn decode(file: Bytes) -> Result<(Format, DynamicImage, Orientation)> {
    let (format, mut decoder) = open(file)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_PIXEL_BYTES {
        let text = format!(
            "the picture of {width} times {height} pixels takes {} bytes in memory, where there is room for \
             {MAX_PIXEL_BYTES}: send a smaller one",
            decoder.total_bytes()
        );
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let orientation = decoder.orientation().map_err(unreadable)?;
    Ok((format, DynamicImage::from_decoder(decoder).map_err(unreadable)?, orientation))
}

/// Reads all that comes before the pixels.
fn open(file: Bytes) -> Result<(Format, impl ImageDecoder)> {
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
    let format = match reader.format() {
        Some(ImageFormat::Jpeg) => Format::Jpeg,
        Some(ImageFormat::Png) => Format::Png,
        _ => {
            let text = "the body is neither PNG nor JPEG";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_NOTED_BYTES);
    reader.limits(limits);
    Ok((format, reader.into_decoder().map_err(unreadable)?))
}

fn unreadable(error: ImageError) -> Error {
    match error {
        ImageError::Limits(_) => {
            let text =
                format!("reading the picture takes more than {MAX_NOTED_BYTES} bytes besides its pixels");
            Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        error => Error::bad_request(format!("the picture cannot be read: {error}")),
    }
}

/// Turned the right way up last, when it is small. Width and height are of what is then seen.
fn fit(picture: DynamicImage, orientation: Orientation, width: u32, height: u32) -> DynamicImage {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let lies = matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH);
    let (width, height) = if lies { (height, width) } else { (width, height) };
    let mut picture = if picture.width() <= width && picture.height() <= height {
        picture
    } else {
        picture.thumbnail(width, height)
    };
    picture.apply_orientation(orientation);
    picture
}

fn encode(picture: DynamicImage, format: Format) -> Result<(&'static str, Vec<u8>)> {
    let mut file = Cursor::new(Vec::new());
    let kind = match format {
        Format::Png => {
            picture.write_to(&mut file, ImageFormat::Png)?;
            "image/png"
        }
        Format::Jpeg => {
            DynamicImage::from(opaque(picture).into_rgb8()).write_to(&mut file, ImageFormat::Jpeg)?;
            "image/jpeg"
        }
    };
    Ok((kind, file.into_inner()))
}

/// On white, where it is transparent: JPEG knows no transparency.
fn opaque(picture: DynamicImage) -> DynamicImage {
    if !picture.color().has_alpha() {
        return picture;
    }
    let mut page = RgbaImage::from_pixel(picture.width(), picture.height(), Rgba([0xff; 4]));
    imageops::overlay(&mut page, &picture.into_rgba8(), 0, 0);
    page.into()
}

#[cfg(test)]
mod tests;
