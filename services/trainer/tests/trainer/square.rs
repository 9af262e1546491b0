//! How a picture becomes a square: what each fit keeps, and the filters by their formulas.

use image::{ImageFormat, Rgb, RgbImage};
use pomona_domain::Code;
use pomona_domain::dataset::{Filter, Fit};
use pomona_trainer::data::decode_square;
use std::io::Cursor;

const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3];
const FITS: [Fit; 3] = [Fit::Pad, Fit::Crop, Fit::Stretch];

const RED: [u8; 3] = [200, 10, 20];
const GREEN: [u8; 3] = [10, 180, 30];
const BLUE: [u8; 3] = [20, 40, 220];
const WHITE: [u8; 3] = [255; 3];

/// Rows of pixels.
type Square = Vec<Vec<[u8; 3]>>;

fn square(picture: &RgbImage, size: u32, fit: Fit, filter: Filter) -> Square {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    let bytes = decode_square(png.get_ref(), size, fit, filter).unwrap();
    assert_eq!(bytes.len(), size as usize * size as usize * 3);
    let rows = bytes.chunks_exact(size as usize * 3);
    rows.map(|row| row.as_chunks().0.to_vec()).collect()
}

/// The same for the picture that lies on its side, turned back.
fn on_its_side(picture: &RgbImage, size: u32, fit: Fit, filter: Filter) -> Square {
    let turned = RgbImage::from_fn(picture.height(), picture.width(), |x, y| {
        *picture.get_pixel(y, x)
    });
    let found = square(&turned, size, fit, filter);
    let side = size as usize;
    let column = |x: usize| (0..side).map(|y| found[y][x]).collect();
    (0..side).map(column).collect()
}

/// Vertical stripes of equal width.
fn stripes<const N: usize>(colours: [[u8; 3]; N], width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width * N as u32, height, |x, _| {
        Rgb(colours[(x / width) as usize])
    })
}

fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mixed = (x * 7 + y * 131 + 5).wrapping_mul(2_654_435_761);
        Rgb([(mixed >> 24) as u8, (mixed >> 16) as u8, (mixed >> 8) as u8])
    })
}

#[test]
fn crop_keeps_the_middle() {
    let picture = stripes([RED, GREEN, BLUE], 8, 8);
    for filter in FILTERS {
        let expect = vec![vec![GREEN; 8]; 8];
        assert_eq!(square(&picture, 8, Fit::Crop, filter), expect);
        assert_eq!(on_its_side(&picture, 8, Fit::Crop, filter), expect);
    }
    // Not only its colour: every pixel of the middle in its place.
    let picture = noise(20, 8);
    let found = square(&picture, 8, Fit::Crop, Filter::Lanczos3);
    for (y, row) in (0u32..).zip(&found) {
        for (x, pixel) in (0u32..).zip(row) {
            assert_eq!(*pixel, picture.get_pixel(6 + x, y).0);
        }
    }
    // Reduced, the inner part has nothing of the sides.
    let found = square(
        &stripes([RED, GREEN, BLUE], 32, 32),
        8,
        Fit::Crop,
        Filter::Bilinear,
    );
    for row in found {
        assert_eq!(row[1..7], [GREEN; 6]);
    }
}

#[test]
fn stretch_keeps_all_and_loses_the_shape() {
    let picture = stripes([RED, BLUE], 16, 8);
    for turn in [square, on_its_side] {
        for row in turn(&picture, 8, Fit::Stretch, Filter::Bilinear) {
            assert_eq!((&row[..3], &row[5..]), (&[RED; 3][..], &[BLUE; 3][..]));
        }
        // Enlarged in one direction, reduced in none.
        let same = turn(
            &stripes([RED, BLUE], 8, 4),
            16,
            Fit::Stretch,
            Filter::Bicubic,
        );
        assert_eq!(same, vec![[[RED; 8], [BLUE; 8]].concat(); 16]);
    }
}

#[test]
fn pad_keeps_all_and_its_shape_on_white() {
    for turn in [square, on_its_side] {
        let bars = |top: usize, inner: usize, size: usize, row: Vec<[u8; 3]>| {
            let below = vec![vec![WHITE; size]; size - top - inner];
            [vec![vec![WHITE; size]; top], vec![row; inner], below].concat()
        };
        let halves = |half: usize| [vec![RED; half], vec![BLUE; half]].concat();
        let found = turn(&stripes([RED, BLUE], 8, 8), 16, Fit::Pad, Filter::Bicubic);
        assert_eq!(found, bars(4, 8, 16, halves(8)));
        // What is left over is odd: the larger bar lies behind.
        let found = turn(&stripes([RED, BLUE], 8, 7), 16, Fit::Pad, Filter::Bicubic);
        assert_eq!(found, bars(4, 7, 16, halves(8)));
        // The longer side is reduced to the square, and the shorter one with it: 5.33 is 5.
        let plain = RgbImage::from_pixel(48, 16, Rgb(GREEN));
        let found = turn(&plain, 16, Fit::Pad, Filter::Lanczos3);
        assert_eq!(found, bars(5, 5, 16, vec![GREEN; 16]));
        // And enlarged.
        let plain = RgbImage::from_pixel(4, 2, Rgb(GREEN));
        let found = turn(&plain, 16, Fit::Pad, Filter::Lanczos3);
        assert_eq!(found, bars(4, 8, 16, vec![GREEN; 16]));
    }
}

/// The kernels: a triangle, Catmull and Rom's cubic (a = -0.5), and a windowed sinc of three lobes.
fn kernel(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    let sinc = |x: f64| {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    };
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        Filter::Lanczos3 if x < 3.0 => sinc(x) * sinc(x / 3.0),
        Filter::Bicubic | Filter::Lanczos3 => 0.0,
    }
}

/// A line resized by the formula: the kernel grows with the reduction and its weights sum to one.
fn resized(line: &[f64], size: usize, filter: Filter) -> Vec<f64> {
    let scale = line.len() as f64 / size as f64;
    let growth = scale.max(1.0);
    (0..size)
        .map(|at| {
            let centre = (at as f64 + 0.5) * scale;
            let weigh = |from: usize| kernel(filter, (from as f64 + 0.5 - centre) / growth);
            let total: f64 = (0..line.len()).map(weigh).sum();
            let value: f64 = (0..line.len()).map(|from| weigh(from) * line[from]).sum();
            (value / total).round().clamp(0.0, 255.0)
        })
        .collect()
}

/// Rows first, then columns, eight bits between them.
fn by_formula(picture: &RgbImage, size: usize, filter: Filter, channel: usize) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<f64>> = picture
        .rows()
        .map(|row| {
            let line: Vec<f64> = row.map(|pixel| f64::from(pixel.0[channel])).collect();
            resized(&line, size, filter)
        })
        .collect();
    let columns: Vec<Vec<f64>> = (0..size)
        .map(|x| {
            let line: Vec<f64> = rows.iter().map(|row| row[x]).collect();
            resized(&line, size, filter)
        })
        .collect();
    (0..size)
        .map(|y| columns.iter().map(|column| column[y]).collect())
        .collect()
}

#[test]
fn the_filters_are_their_formulas() {
    for (width, height) in [(16, 16), (48, 24), (13, 37), (5, 6), (12, 9)] {
        let mut picture = noise(width, height);
        // Nothing overshoots what eight bits hold, so that the order of directions does not matter.
        picture
            .iter_mut()
            .for_each(|value| *value = *value / 2 + 64);
        for filter in FILTERS {
            let found = square(&picture, 12, Fit::Stretch, filter);
            for channel in 0..3 {
                let expect = by_formula(&picture, 12, filter, channel);
                for (row, line) in found.iter().zip(expect) {
                    for (pixel, value) in row.iter().zip(line) {
                        let off = (f64::from(pixel[channel]) - value).abs();
                        // Both directions round.
                        assert!(off <= 1.0, "{filter:?} {width} × {height}: off by {off}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_filters_differ() {
    for (width, height) in [(40, 40), (10, 10), (40, 12)] {
        let picture = noise(width, height);
        for fit in FITS {
            let [a, b, c] = FILTERS.map(|filter| square(&picture, 16, fit, filter));
            assert!(a != b && b != c && a != c, "{fit:?} {width} × {height}");
        }
    }
}

#[test]
fn a_constant_picture_stays_constant() {
    for (width, height) in [(40, 40), (31, 8), (3, 3), (1, 40), (40, 1), (1, 1)] {
        let picture = RgbImage::from_pixel(width, height, Rgb([201, 99, 3]));
        for filter in FILTERS {
            for fit in [Fit::Crop, Fit::Stretch] {
                let found = square(&picture, 16, fit, filter);
                assert_eq!(
                    found,
                    vec![vec![[201, 99, 3]; 16]; 16],
                    "{fit:?} {filter:?}"
                );
            }
        }
    }
}

#[test]
fn a_picture_one_pixel_wide_is_padded_to_one_column() {
    let picture = RgbImage::from_pixel(1, 400, Rgb(BLUE));
    for filter in FILTERS {
        for turn in [square, on_its_side] {
            // Rounded, its width would be none.
            let mut row = vec![WHITE; 8];
            row[3] = BLUE;
            assert_eq!(turn(&picture, 8, Fit::Pad, filter), vec![row; 8]);
        }
    }
}

#[test]
fn sizes_outside_the_limits_are_refused() {
    let mut png = Cursor::new(Vec::new());
    noise(9, 9).write_to(&mut png, ImageFormat::Png).unwrap();
    let of = |size| decode_square(png.get_ref(), size, Fit::Pad, Filter::Bilinear);
    for size in [0, 7, 4097, u32::MAX] {
        assert_eq!(of(size).unwrap_err().code, Code::OutOfRange, "{size}");
    }
    assert_eq!(of(8).unwrap().len(), 192);
}
