//! From the bytes of a picture to a square of RGB pixels.
//!
//! The convention, which is part of a data set's identity: the format is told by content (JPEG,
//! PNG, WebP, BMP, GIF; of an animation the first picture); the EXIF orientation is applied;
//! alpha is composited on white in the stored values; 16 bits become 8; colour profiles are not
//! applied. The square is made in the stored values by a separable convolution whose kernel grows
//! with the reduction (antialiasing), as Pillow does it:
//! `pad` resizes the longer side to the square and centres the picture on white,
//! `crop` cuts the largest centred square and resizes it, `stretch` resizes both sides.
//!
//! Nothing here trusts a picture: its size is read from its header before anything is allocated.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageResult, Limits, RgbImage};
use pomona_domain::dataset::{Filter, Fit};
use pomona_domain::{Code, Fault};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Pixels of one picture.
const PIXEL_LIMIT: u64 = 100_000_000;
/// Bytes a decoder may allocate for one picture.
const DECODER_LIMIT: u64 = 512 << 20;
/// Side of a square image.
pub(super) const SIZES: std::ops::RangeInclusive<u32> = 8..=4096;

/// Why a picture was not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is of no format that is read.
    NotAnImage(String),
    /// It is of a known format and damaged.
    Corrupt(String),
    /// It is over the limit of pixels.
    TooManyPixels(String),
}

impl Refusal {
    /// The end of a sentence that begins with the file's name.
    pub(super) fn sentence(&self) -> &str {
        match self {
            Self::NotAnImage(text) | Self::Corrupt(text) | Self::TooManyPixels(text) => text,
        }
    }
}

/// Decodes a picture and makes it a square of `size` pixels: RGB bytes, height × width × 3.
/// `BadPicture` when it cannot be decoded, `OutOfRange` for a size outside 8 to 4096.
pub fn decode_square(bytes: &[u8], size: u32, fit: Fit, filter: Filter) -> Result<Vec<u8>, Fault> {
    if !SIZES.contains(&size) {
        return Err(Fault::new(
            Code::OutOfRange,
            format!("an image size of {size} pixels is outside 8 to 4096"),
        ));
    }
    decode(bytes)
        .map(|picture| square(&picture, size, fit, filter))
        .map_err(|refusal| {
            Fault::new(
                Code::BadPicture,
                format!("the picture {}", refusal.sentence()),
            )
            .hint("JPEG, PNG, WebP, BMP and GIF up to 100 megapixels are read")
        })
}

/// Decodes a picture.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Refusal> {
    // A decoder that panics on a damaged file is a decoder that found the file damaged.
    catch_unwind(AssertUnwindSafe(|| decode_trusting(bytes)))
        .unwrap_or_else(|_| Err(Refusal::Corrupt("is damaged".into())))
}

fn decode_trusting(bytes: &[u8]) -> Result<RgbImage, Refusal> {
    let format = image::guess_format(bytes)
        .map_err(|_| Refusal::NotAnImage("is no picture of a known format".into()))?;
    let mut decoder = decoder(bytes, format)?.map_err(|error| damaged(&error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXEL_LIMIT {
        return Err(Refusal::TooManyPixels(format!(
            "has {width} × {height} pixels, the limit is 100 megapixels"
        )));
    }
    if width == 0 || height == 0 {
        return Err(Refusal::Corrupt("has no pixels".into()));
    }
    // Not every decoder holds itself to the limit that it is told.
    if decoder.total_bytes() > DECODER_LIMIT {
        return Err(Refusal::TooManyPixels(format!(
            "takes {} MiB when decoded, the limit is {} MiB",
            decoder.total_bytes() >> 20,
            DECODER_LIMIT >> 20
        )));
    }
    decoder
        .set_limits(limits())
        .map_err(|error| damaged(&error))?;
    // Damaged EXIF data says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| damaged(&error))?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_LIMIT);
    limits
}

type Decoded<'a> = ImageResult<Box<dyn ImageDecoder + 'a>>;

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<Decoded<'_>, Refusal> {
    fn boxed<'a>(decoder: ImageResult<impl ImageDecoder + 'a>) -> Decoded<'a> {
        decoder.map(|decoder| Box::new(decoder) as Box<dyn ImageDecoder + 'a>)
    }
    let input = Cursor::new(bytes);
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err(Refusal::Corrupt("is a JPEG that is cut off".into()));
    }
    if format == ImageFormat::Jpeg {
        Ok(boxed(JpegDecoder::new(input)))
    } else if format == ImageFormat::Png {
        // Told before the header is read: a colour profile is inflated there.
        Ok(boxed(PngDecoder::with_limits(input, limits())))
    } else if format == ImageFormat::WebP {
        Ok(boxed(WebPDecoder::new(input)))
    } else if format == ImageFormat::Bmp {
        Ok(boxed(BmpDecoder::new(input)))
    } else if format == ImageFormat::Gif {
        Ok(boxed(GifDecoder::new(input)))
    } else {
        Err(Refusal::NotAnImage(format!(
            "is of the format {format:?}, which is not read"
        )))
    }
}

fn damaged(error: &image::ImageError) -> Refusal {
    let text: String = error.to_string().chars().take(200).collect();
    Refusal::Corrupt(format!("is damaged: {}", text.replace('\n', " ")))
}

/// Whether a JPEG reaches its end marker. The decoder is lenient and would paint the missing part
/// grey. The thumbnail inside EXIF data has an end marker too, so segments are walked.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return true,
            // Fill bytes.
            (0xFF, 0xFF) => 1,
            // Markers without a length.
            (0xFF, 0x01 | 0xD0..=0xD8) => 2,
            (0xFF, 0xC0..=0xFE) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                // After a scan's header come entropy-coded bytes: the next arm walks them.
                2 + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => {
                let rest = &bytes[at + 1..];
                1 + rest.iter().position(|b| *b == 0xFF).unwrap_or(rest.len())
            }
        };
    }
    false
}

fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let (width, height) = (picture.width(), picture.height());
    let rgba = picture.into_rgba8();
    let mut rgb = Vec::with_capacity(rgba.as_raw().len() / 4 * 3);
    for pixel in rgba.as_raw().chunks_exact(4) {
        let alpha = u32::from(pixel[3]);
        for &value in &pixel[..3] {
            let mixed = u32::from(value) * alpha + 255 * (255 - alpha);
            rgb.push(((mixed + 127) / 255) as u8);
        }
    }
    RgbImage::from_raw(width, height, rgb).unwrap_or_default()
}

/// The square of a picture that has pixels: RGB bytes, height × width × 3.
pub(super) fn square(picture: &RgbImage, size: u32, fit: Fit, filter: Filter) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    match fit {
        Fit::Stretch => {
            let whole = [0.0, 0.0, f64::from(width), f64::from(height)];
            resized(picture, (width, height), whole, (size, size), filter)
        }
        Fit::Crop => {
            let side = f64::from(width.min(height));
            let left = (f64::from(width) - side) / 2.0;
            let top = (f64::from(height) - side) / 2.0;
            let middle = [left, top, side, side];
            resized(picture, (width, height), middle, (size, size), filter)
        }
        Fit::Pad => {
            let side = f64::from(width.max(height));
            let scaled = |length: u32| {
                let exact = f64::from(length) * f64::from(size) / side;
                (exact.round() as u32).clamp(1, size)
            };
            let inner = (scaled(width), scaled(height));
            let whole = [0.0, 0.0, f64::from(width), f64::from(height)];
            let pixels = resized(picture, (width, height), whole, inner, filter);
            if inner == (size, size) {
                return pixels;
            }
            centred_on_white(&pixels, inner, size)
        }
    }
}

fn centred_on_white(pixels: &[u8], inner: (u32, u32), size: u32) -> Vec<u8> {
    let (size, width, height) = (size as usize, inner.0 as usize, inner.1 as usize);
    let mut canvas = vec![255; size * size * 3];
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    for (row, line) in pixels.chunks_exact(width * 3).enumerate() {
        let start = ((top + row) * size + left) * 3;
        canvas[start..start + line.len()].copy_from_slice(line);
    }
    canvas
}

/// Resizes the box (left, top, width, height) of a picture, RGB bytes. As in Pillow, what lies
/// beside the box is read where the kernel reaches over its edge.
pub(super) fn resized(
    picture: &[u8],
    size: (u32, u32),
    [left, top, width, height]: [f64; 4],
    target: (u32, u32),
    filter: Filter,
) -> Vec<u8> {
    let kernel = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Lanczos3 => FilterType::Lanczos3,
    };
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(kernel))
        .crop(left, top, width, height);
    let mut output = Image::new(target.0, target.1, PixelType::U8x3);
    // Both can only fail on sizes that do not fit, and every size comes from the picture itself.
    ImageRef::new(size.0, size.1, picture, PixelType::U8x3)
        .map_err(|error| error.to_string())
        .and_then(|input| {
            Resizer::new()
                .resize(&input, &mut output, &options)
                .map_err(|error| error.to_string())
        })
        .unwrap_or_else(|error| unreachable!("a picture does not fit its own size: {error}"));
    output.into_vec()
}
