//! What a picture's bytes become: every format, orientation, alpha, depth and palette, exactly where
//! the format keeps pixels exactly; and damage that is refused.

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, Frame, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, LumaA, Rgb, RgbImage,
    Rgba, RgbaImage,
};
use pomona_domain::dataset::{Filter, Fit};
use pomona_domain::{Code, Fault};
use pomona_trainer::data::decode_square;
use std::io::Cursor;

const SIDE: u32 = 8;

/// Colours that JPEG keeps apart.
const QUADRANTS: [[u8; 3]; 4] = [[220, 30, 30], [30, 190, 40], [30, 50, 210], [20, 20, 20]];

/// A picture of the square's size, so that resizing changes nothing.
fn pixels(bytes: &[u8]) -> Vec<u8> {
    decode_square(bytes, SIDE, Fit::Stretch, Filter::Bilinear).unwrap()
}

fn refused(bytes: &[u8]) -> Fault {
    let fault = decode_square(bytes, SIDE, Fit::Pad, Filter::Bilinear).unwrap_err();
    assert_eq!(fault.code, Code::BadPicture, "{fault}");
    fault
}

fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// No two pixels, rows or columns are the same.
fn motley() -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        Rgb([(x * 30) as u8, (y * 31 + x) as u8, (255 - x * y * 5) as u8])
    })
}

/// One chunk of a PNG.
fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in name.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], name, data, &(!crc).to_be_bytes()].concat()
}

/// A zlib stream with one stored block.
fn stored(data: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = data.len() as u16;
    let mut stream = vec![0x78, 0x01, 1];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(data);
    stream.extend((b << 16 | a).to_be_bytes());
    stream
}

/// A PNG by hand: `rows` are its bytes, each row after its filter byte.
fn png(side: u32, depth: u8, colour: u8, before: &[Vec<u8>], rows: &[u8]) -> Vec<u8> {
    let side = side.to_be_bytes();
    let header = [&side[..], &side, &[depth, colour, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        before.concat(),
        chunk(b"IDAT", &stored(rows)),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

/// A wide JPEG of four colours, 32 × 16.
fn quadrants() -> Vec<u8> {
    let picture = RgbImage::from_fn(32, 16, |x, y| {
        Rgb(QUADRANTS[usize::from(y >= 8) * 2 + usize::from(x >= 16)])
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 100)
        .encode_image(&picture)
        .unwrap();
    bytes
}

/// Byte order of an EXIF segment.
#[derive(Debug, Clone, Copy)]
enum Order {
    Intel,
    Motorola,
}

/// The same JPEG with an EXIF segment whose only entry is the orientation.
fn oriented(jpeg: &[u8], orientation: u16, order: Order) -> Vec<u8> {
    let short = |value: u16| match order {
        Order::Intel => value.to_le_bytes(),
        Order::Motorola => value.to_be_bytes(),
    };
    let long = |value: u32| match order {
        Order::Intel => value.to_le_bytes(),
        Order::Motorola => value.to_be_bytes(),
    };
    let mut tiff = match order {
        Order::Intel => b"II".to_vec(),
        Order::Motorola => b"MM".to_vec(),
    };
    tiff.extend(short(42));
    tiff.extend(long(8));
    // One entry: tag 0x0112, one short.
    tiff.extend(short(1));
    tiff.extend(short(0x0112));
    tiff.extend(short(3));
    tiff.extend(long(1));
    tiff.extend(short(orientation));
    tiff.extend([0, 0]);
    tiff.extend(long(0));
    let length = (2 + 6 + tiff.len() as u16).to_be_bytes();
    [
        &jpeg[..2],
        &[0xFF, 0xE1],
        &length,
        b"Exif\0\0",
        &tiff,
        &jpeg[2..],
    ]
    .concat()
}

/// Which of the four colours is nearest, or none when it is none of them.
fn nearest(pixel: &[u8]) -> Option<usize> {
    QUADRANTS.iter().position(|colour| {
        let far = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 25;
        !colour.iter().zip(pixel).any(far)
    })
}

#[test]
fn the_orientation_of_a_jpeg_is_applied() {
    let jpeg = quadrants();
    // Upper left, upper right, lower left, lower right as they are shown, and whether width and
    // height change places. 0 and 9 mean nothing.
    let table = [
        (0, [0, 1, 2, 3], false),
        (1, [0, 1, 2, 3], false),
        (2, [1, 0, 3, 2], false),
        (3, [3, 2, 1, 0], false),
        (4, [2, 3, 0, 1], false),
        (5, [0, 2, 1, 3], true),
        (6, [2, 0, 3, 1], true),
        (7, [3, 1, 2, 0], true),
        (8, [1, 3, 0, 2], true),
        (9, [0, 1, 2, 3], false),
    ];
    for order in [Order::Intel, Order::Motorola] {
        for (orientation, expect, turned) in table {
            let bytes = oriented(&jpeg, orientation, order);
            let square = decode_square(&bytes, 32, Fit::Pad, Filter::Bilinear).unwrap();
            let at = |x: usize, y: usize| {
                let (x, y) = if turned { (y, x) } else { (x, y) };
                nearest(&square[(y * 32 + x) * 3..][..3])
            };
            // The picture lies in the middle half of its shorter side.
            let (right, lower) = if turned {
                ((8, 20), (24, 12))
            } else {
                ((24, 12), (8, 20))
            };
            let found = [
                at(8, 12),
                at(right.0, right.1),
                at(lower.0, lower.1),
                at(24, 20),
            ];
            assert_eq!(
                found,
                expect.map(Some),
                "orientation {orientation}, {order:?}"
            );
            assert_eq!(
                at(16, 4),
                None,
                "orientation {orientation}: white beside it"
            );
        }
    }
}

#[test]
fn exif_that_cannot_be_read_changes_nothing() {
    let jpeg = quadrants();
    let plain = decode_square(&jpeg, 32, Fit::Pad, Filter::Bilinear).unwrap();
    let mut broken = oriented(&jpeg, 6, Order::Intel);
    // The offset of the first directory points out of the segment.
    broken[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let found = decode_square(&broken, 32, Fit::Pad, Filter::Bilinear).unwrap();
    assert!(found == plain);
}

#[test]
fn formats_without_loss_keep_every_pixel() {
    let picture = motley();
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = file(picture.clone(), format);
        assert!(pixels(&bytes) == *picture.as_raw(), "{format:?}");
    }
}

#[test]
fn the_first_picture_of_an_animation_counts() {
    let frame = |colour| Frame::new(RgbaImage::from_pixel(SIDE, SIDE, Rgba(colour)));
    let mut bytes = Vec::new();
    GifEncoder::new(&mut bytes)
        .encode_frames([frame([200, 10, 30, 255]), frame([0, 90, 250, 255])])
        .unwrap();
    assert_eq!(pixels(&bytes), [200, 10, 30].repeat(64));
}

#[test]
fn alpha_is_composited_on_white() {
    // (255 - alpha) parts of white and alpha parts of the value, rounded to the nearest.
    let cases = [
        ([0, 0, 0, 0], [255, 255, 255]),
        ([9, 99, 199, 255], [9, 99, 199]),
        ([0, 0, 0, 128], [127, 127, 127]),
        ([0, 0, 0, 127], [128, 128, 128]),
        ([200, 100, 50, 51], [244, 224, 214]),
        ([254, 1, 0, 1], [255, 254, 254]),
    ];
    for (stored, shown) in cases {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let bytes = file(RgbaImage::from_pixel(SIDE, SIDE, Rgba(stored)), format);
            assert_eq!(pixels(&bytes), shown.repeat(64), "{format:?} {stored:?}");
        }
    }
    let grey = GrayAlphaImage::from_pixel(SIDE, SIDE, LumaA([100, 51]));
    assert_eq!(pixels(&file(grey, ImageFormat::Png)), [224; 192]);
}

#[test]
fn alpha_is_composited_before_resizing() {
    // Black that cannot be seen must not darken what stands beside it.
    let picture = RgbaImage::from_fn(16, 16, |x, _| Rgba([0, 0, 0, u8::from(x >= 8) * 255]));
    let found = pixels(&file(picture, ImageFormat::Png));
    let seen = RgbImage::from_fn(16, 16, |x, _| Rgb([u8::from(x < 8) * 255; 3]));
    assert_eq!(found, pixels(&file(seen, ImageFormat::Png)));
    assert_eq!((found[0], found[21]), (255, 0));
}

#[test]
fn sixteen_bits_become_the_nearest_eight() {
    for (value, expect) in [
        (0, 0),
        (65_535, 255),
        (257 * 77, 77),
        (257 * 10 + 100, 10),
        (257 * 10 + 200, 11),
        (257 * 200 - 100, 200),
    ] {
        let picture = ImageBuffer::from_pixel(SIDE, SIDE, Rgb([value, 65_535 - value, 0u16]));
        let bytes = file(DynamicImage::ImageRgb16(picture), ImageFormat::Png);
        assert_eq!(bytes[24], 16, "the file has 16 bits");
        let found = pixels(&bytes);
        assert_eq!(found, [expect, 255 - expect, 0].repeat(64), "{value}");
    }
}

#[test]
fn palettes_are_looked_up() {
    let palette = [[10, 20, 30], [200, 0, 100], [0, 255, 0], [7, 7, 7]];
    let entries = chunk(b"PLTE", &palette.concat());
    // Two bits a pixel: 0 1 2 3 0 1 2 3.
    let row = [0, 0b00_01_10_11, 0b00_01_10_11];
    let bytes = png(SIDE, 2, 3, std::slice::from_ref(&entries), &row.repeat(8));
    assert_eq!(pixels(&bytes), palette.concat().repeat(16));
    // The second entry shows a fifth of itself.
    let alphas = chunk(b"tRNS", &[255, 51]);
    let bytes = png(SIDE, 2, 3, &[entries, alphas], &row.repeat(8));
    let shown = [[10, 20, 30], [244, 204, 224], [0, 255, 0], [7, 7, 7]];
    assert_eq!(pixels(&bytes), shown.concat().repeat(16));
}

#[test]
fn grey_becomes_three_equal_channels() {
    let grey = GrayImage::from_fn(SIDE, SIDE, |x, y| image::Luma([(x * 8 + y * 20) as u8]));
    let expect: Vec<u8> = grey.as_raw().iter().flat_map(|value| [*value; 3]).collect();
    assert_eq!(pixels(&file(grey.clone(), ImageFormat::Png)), expect);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 100)
        .encode_image(&grey)
        .unwrap();
    for (found, expect) in pixels(&jpeg).iter().zip(expect) {
        assert!(found.abs_diff(expect) <= 3, "{found} is not {expect}");
    }
}

#[test]
fn what_is_cut_off_is_refused_in_every_format() {
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
    ] {
        let whole = file(DynamicImage::from(motley()), format);
        assert_eq!(pixels(&whole).len(), 192, "{format:?}");
        for part in [3, 2] {
            let length = whole.len() - whole.len() / part;
            let fault = refused(&whole[..length]);
            assert!(fault.message.starts_with("the picture is"), "{fault}");
        }
    }
    // A PNG in its signature, its header and its pixels.
    let whole = file(motley(), ImageFormat::Png);
    for length in [8, 20, 33, 45, whole.len() - 20] {
        refused(&whole[..length]);
    }
}

#[test]
fn other_formats_and_other_bytes_are_refused() {
    for bytes in [&b""[..], b"no picture", b"II*\0\x08\0\0\0\0\0", &[0xFF; 64]] {
        let fault = refused(bytes);
        assert!(fault.hint.is_some_and(|hint| hint.contains("JPEG")));
    }
}

/// The headers alone are so large: had a decoder gone on to the pixels, it would find too few.
#[test]
fn a_size_over_the_limit_is_refused_from_the_header() {
    let huge = 20_000u32;
    let mut gif = file(DynamicImage::from(motley()), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0x20, 0x4E, 0x20, 0x4E]);
    let mut jpeg = quadrants();
    let frame = jpeg.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4E, 0x20, 0x4E, 0x20]);
    for bytes in [png(huge, 8, 2, &[], &[]), gif, jpeg] {
        let fault = refused(&bytes);
        assert_eq!(
            fault.message,
            "the picture has 20000 × 20000 pixels, the limit is 100 megapixels"
        );
    }
    // Not too many pixels, but too many bytes: 10,000² of four 16-bit channels.
    let fault = refused(&png(10_000, 16, 6, &[], &[]));
    assert_eq!(
        fault.message,
        "the picture takes 762 MiB when decoded, the limit is 512 MiB"
    );
}
