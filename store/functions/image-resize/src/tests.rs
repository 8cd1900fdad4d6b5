use super::*;
use fawn::testing;
use image::{
    ImageEncoder, Rgb, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};

fn resize(uri: &str, file: Vec<u8>) -> Response<Bytes> {
    testing::call(handle, Request::post(uri).body(file).unwrap())
}

fn seen(answer: &Response<Bytes>) -> RgbImage {
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    image::load_from_memory(answer.body()).unwrap().into_rgb8()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    file(RgbImage::from_pixel(width, height, Rgb([200, 0, 0])).into(), ImageFormat::Png)
}

fn file(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[test]
fn fits_into_what_is_asked_for() {
    for (uri, width, height) in [
        ("/?width=20", 20, 10),
        ("/?height=20", 40, 20),
        ("/?width=20&height=5", 10, 5),
        ("/?width=100", 80, 40),
        ("/?width=1&height=4000000000", 1, 1),
        ("/?format=jpg", 80, 40),
    ] {
        let picture = seen(&resize(uri, png(80, 40)));
        assert_eq!(picture.dimensions(), (width, height), "{uri}");
        assert!(picture.get_pixel(0, 0).0[0] > 150, "{uri}");
    }
}

#[test]
fn keeps_or_changes_the_format() {
    let kind = |uri, file| resize(uri, file).headers()["content-type"].clone();
    let jpeg = || file(RgbImage::new(4, 4).into(), ImageFormat::Jpeg);
    assert_eq!(kind("/?width=2", png(4, 4)), "image/png");
    assert_eq!(kind("/?width=2", jpeg()), "image/jpeg");
    assert_eq!(kind("/?width=2&format=png", jpeg()), "image/png");
    assert_eq!(kind("/?width=2&format=jpeg", png(4, 4)), "image/jpeg");
}

#[test]
fn is_white_where_nothing_is() {
    let nothing = file(RgbaImage::new(4, 4).into(), ImageFormat::Png);
    assert!(seen(&resize("/?format=jpeg", nothing)).get_pixel(0, 0).0.iter().all(|&part| part > 250));
}

/// The 6 says: to be turned by 90° clockwise (Exif 2.32, 4.6.4).
#[test]
fn turns_what_a_camera_held_on_its_side_has_taken() {
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new(&mut jpeg);
    let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let mut lying = RgbImage::from_pixel(64, 32, Rgb([0xff; 3]));
    (0..32).for_each(|y| (0..32).for_each(|x| lying.put_pixel(x, y, Rgb([0; 3]))));
    encoder.write_image(&lying, 64, 32, image::ExtendedColorType::Rgb8).unwrap();

    let picture = seen(&resize("/?height=32", jpeg));
    assert_eq!(picture.dimensions(), (16, 32));
    assert!(picture.get_pixel(8, 2).0[0] < 50, "what was left is on top");
    assert!(picture.get_pixel(8, 30).0[0] > 200, "what was right is below");
}

/// A PNG with a colour profile (iCCP) of so many bytes, which are next to none in the file.
fn with_profile(bytes: usize) -> Vec<u8> {
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_icc_profile(vec![0; bytes]).unwrap();
    encoder.write_image(&[0; 3], 1, 1, image::ExtendedColorType::Rgb8).unwrap();
    png
}

#[test]
fn unpacks_no_more_of_a_profile_than_there_is_room_for() {
    let unpacked =
        |file: Vec<u8>| open(file.into()).unwrap().1.icc_profile().unwrap().map(|profile| profile.len());
    assert_eq!(unpacked(with_profile(3000)), Some(3000));
    let hostile = with_profile(MAX_NOTED_BYTES as usize + 1);
    assert!(hostile.len() < 1 << 20);
    assert_eq!(unpacked(hostile.clone()), None);
    assert_eq!(seen(&resize("/?width=1", hostile)).dimensions(), (1, 1));
}

#[test]
fn says_what_is_wrong() {
    let cut = png(100, 100)[..80].to_vec();
    for (uri, file, status, said) in [
        ("/", png(1, 1), 400, "?width="),
        ("/?width=0", png(1, 1), 400, "at least 1"),
        ("/?width=-1", png(1, 1), 400, "width"),
        ("/?format=gif", png(1, 1), 400, "`png`"),
        ("/?width=1", b"GIF89a".to_vec(), 415, "neither PNG nor JPEG"),
        ("/?width=1", vec![], 415, "neither PNG nor JPEG"),
        ("/?width=1", cut, 400, "cannot be read"),
        ("/?width=1", vec![0; MAX_FILE_BYTES + 1], 413, "longer than"),
        ("/?format=png", png(3000, 2000), 400, "3000 times 2000 pixels is too large"),
        ("/?width=1", png(4000, 4000), 413, "4000 times 4000"),
        ("/?width=1", png(6_000_000, 1), 413, "besides its pixels"),
    ] {
        let answer = resize(uri, file);
        let text = str::from_utf8(answer.body()).unwrap();
        assert_eq!(answer.status(), status, "{uri}: {text}");
        assert!(text.contains(said), "{uri}: {text}");
    }
}
