//! Data sets and backbones.

use pomona_domain::backbone::{Backbone, Block};
use pomona_domain::dataset::{Dataset, Filter, Fit, Sample, Split};
use pomona_domain::spec::FrozenDepth;
use pomona_domain::{Code, Fault, Timestamp};
use std::fmt::Write as _;

use crate::human::{ago, bytes, count, moment, plural};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};

/// Problems that are shown in full.
const PROBLEMS_SHOWN: usize = 12;

/// Newest versions.
pub fn datasets(style: Style, now: Timestamp, rows: &[Dataset]) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "name",
            ">version",
            ">classes",
            ">train",
            ">val",
            ">test",
            "?>set aside",
            "?size",
            "?added",
        ],
    );
    for row in rows {
        let totals = totals(row);
        grid.row(vec![
            toned(&row.name, Tone::Bold),
            row.number.into(),
            row.summary.classes.len().into(),
            totals[0].into(),
            totals[1].into(),
            totals[2].into(),
            aside(row),
            format!("{0}×{0}", row.options.image_size).into(),
            toned(ago(row.created_at, now), Tone::Dim),
        ]);
    }
    grid.render()
}

fn totals(row: &Dataset) -> [u64; 3] {
    row.summary.classes.values().fold([0; 3], |sums, counts| {
        [0, 1, 2].map(|part| sums[part] + u64::from(counts[part]))
    })
}

fn aside(row: &Dataset) -> Text {
    let files: u32 = row.summary.set_aside.values().sum();
    let tone = if files == 0 { Tone::Dim } else { Tone::Warn };
    toned(files, tone)
}

/// One version.
pub fn dataset(style: Style, row: &Dataset) -> String {
    let options = &row.options;
    let summary = &row.summary;
    let [train, val, test] = totals(row);
    let fit = match options.fit {
        Fit::Pad => "padded with white",
        Fit::Crop => "centre cut out",
        Fit::Stretch => "stretched",
    };
    let filter = match options.filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
        Filter::Lanczos3 => "lanczos3",
    };
    let shares = options.split.map(|share| share.to_string()).join("/");
    let mut pairs: Vec<(&str, Text)> = vec![
        (
            "data set",
            toned(format!("{}@{}", row.name, row.number), Tone::Bold),
        ),
        (
            "images",
            format!(
                "{} ({train} train, {val} val, {test} test)",
                train + val + test
            )
            .into(),
        ),
        (
            "picture",
            format!("{0}×{0} pixels, {fit}, {filter}", options.image_size).into(),
        ),
        ("split", format!("{shares}, seed {}", options.seed).into()),
    ];
    if let Some(pattern) = &options.group_pattern {
        pairs.push(("group pattern", pattern.into()));
    }
    pairs.push((
        "groups",
        format!(
            "{} ({} of another image)",
            plural(u64::from(summary.groups), "group"),
            copies(summary.duplicates)
        )
        .into(),
    ));
    pairs.push(("manifest", row.manifest.into()));
    pairs.push(("added", moment(row.created_at).into()));
    let mut text = card(style, pairs);
    text.push('\n');
    let mut grid = Grid::new(style, &["class", ">train", ">val", ">test"]);
    for (class, counts) in &summary.classes {
        grid.row(vec![
            class.into(),
            counts[0].into(),
            counts[1].into(),
            counts[2].into(),
        ]);
    }
    text.push_str(&grid.render());
    text.push_str(&set_aside(style, row));
    text
}

fn copies(duplicates: u32) -> String {
    if duplicates == 1 {
        "1 copy or mirror image".to_owned()
    } else {
        format!("{duplicates} copies or mirror images")
    }
}

/// Files that were set aside, or nothing.
pub fn set_aside(style: Style, row: &Dataset) -> String {
    let summary = &row.summary;
    let files: u32 = summary.set_aside.values().sum();
    if files == 0 {
        return String::new();
    }
    let reasons: Vec<String> = summary
        .set_aside
        .iter()
        .map(|(why, files)| format!("{files} {}", why.replace('_', " ")))
        .collect();
    let set_aside = plural(u64::from(files), "file");
    let mut text = format!(
        "\n{} set aside: {}\n",
        style.yellow(&set_aside),
        reasons.join(", ")
    );
    for problem in summary.problems.iter().take(PROBLEMS_SHOWN) {
        let _ = writeln!(text, "  {}  {}", problem.path, style.dim(&problem.detail));
    }
    let more = (files as usize).saturating_sub(PROBLEMS_SHOWN.min(summary.problems.len()));
    if more > 0 {
        text.push_str(&style.dim(&format!("  and {more} more\n")));
    }
    text
}

/// Samples of a split.
pub fn samples(style: Style, classes: &[String], samples: &[Sample]) -> String {
    let mut grid = Grid::new(style, &["path", "class", "split", ">group"]);
    for sample in samples {
        let class = classes
            .get(sample.label as usize)
            .map_or("?", String::as_str);
        grid.row(vec![
            (&sample.path).into(),
            class.into(),
            split(sample.split).into(),
            sample.group.into(),
        ]);
    }
    grid.render()
}

/// Name of a split.
pub fn split(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

/// The catalogue.
pub fn backbones(style: Style, now: Timestamp, rows: &[Backbone]) -> String {
    let mut grid = Grid::new(
        style,
        &[
            "name",
            "arch",
            "?>blocks",
            "?>parameters",
            "?>macs",
            "?measured at",
            "?added",
        ],
    );
    for row in rows {
        let (parameters, macs) = sums(&row.blocks);
        grid.row(vec![
            toned(&row.name, Tone::Bold),
            (&row.arch).into(),
            row.blocks.len().into(),
            count(parameters).into(),
            count(macs).into(),
            format!("{0}×{0}", row.image_size).into(),
            toned(ago(row.created_at, now), Tone::Dim),
        ]);
    }
    grid.render()
}

fn sums(blocks: &[Block]) -> (u64, u64) {
    blocks.iter().fold((0, 0), |(parameters, macs), block| {
        (parameters + block.parameters, macs + block.macs)
    })
}

/// How many blocks a frozen depth means: `all`, a number, or the name of a block or stage (which
/// stands for its last block).
pub fn frozen_blocks(backbone: &Backbone, depth: &str) -> Result<usize, Fault> {
    let blocks = &backbone.blocks;
    let asked = depth.parse().map_or_else(
        |_| FrozenDepth::Named(depth.to_owned()),
        FrozenDepth::Blocks,
    );
    let names = blocks.iter().map(|block| block.name.as_str());
    let found = pomona_domain::backbone::frozen_blocks(names, &asked);
    found.ok_or_else(|| {
        let message = format!("backbone `{}` has no frozen depth `{depth}`", backbone.name);
        Fault::new(Code::UnknownBlock, message).hint(format!(
            "take `all`, a number from 0 to {}, or a name that `pomona backbone show {}` lists",
            blocks.len(),
            backbone.name
        ))
    })
}

/// One backbone, with what `frozen` blocks leave to train.
pub fn backbone(style: Style, row: &Backbone, frozen: Option<usize>) -> String {
    let (parameters, macs) = sums(&row.blocks);
    let mut pairs: Vec<(&str, Text)> = vec![
        ("backbone", toned(&row.name, Tone::Bold)),
        ("architecture", (&row.arch).into()),
        ("blocks", row.blocks.len().into()),
        (
            "parameters",
            format!(
                "{} and {} of the source head",
                count(parameters),
                count(row.head_parameters)
            )
            .into(),
        ),
        (
            "multiply-adds",
            format!("{} for an image of {1}×{1}", count(macs), row.image_size).into(),
        ),
        ("weights", row.weights.into()),
        ("added", moment(row.created_at).into()),
    ];
    if let Some(frozen) = frozen {
        pairs.extend(trained(row, frozen));
    }
    let mut text = card(style, pairs);
    text.push('\n');
    let mut grid = Grid::new(
        style,
        &[
            ">depth",
            "block",
            "?>parameters",
            "?>macs",
            "?>macs frozen",
            "?>cache/image",
            "?output",
            "",
        ],
    );
    let mut below = 0;
    for (index, block) in row.blocks.iter().enumerate() {
        below += block.macs;
        let shape: Vec<String> = block.output_shape.iter().map(ToString::to_string).collect();
        let is_frozen = frozen.is_some_and(|frozen| index < frozen);
        grid.row(vec![
            (index + 1).into(),
            (&block.name).into(),
            count(block.parameters).into(),
            count(block.macs).into(),
            format!("{:.0} %", 100.0 * below as f64 / macs.max(1) as f64).into(),
            bytes(block.cut_bytes).into(),
            shape.join("×").into(),
            match frozen {
                None => "".into(),
                Some(_) if is_frozen => toned("frozen", Tone::Dim),
                Some(_) => toned("trains", Tone::Good),
            },
        ]);
    }
    text + &grid.render()
}

fn trained(row: &Backbone, frozen: usize) -> Vec<(&'static str, Text)> {
    let (all, macs) = sums(&row.blocks);
    let (left, left_macs) = sums(&row.blocks[frozen..]);
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let trains = format!(
        "{} of {} parameters ({:.1} %), {:.0} % of the multiply-adds, and the new head",
        count(left),
        count(all),
        share(left, all),
        share(left_macs, macs)
    );
    let cut = match frozen
        .checked_sub(1)
        .and_then(|index| row.blocks.get(index))
    {
        Some(block) => format!("{} an image after `{}`", bytes(block.cut_bytes), block.name),
        None => "nothing: every block trains".to_owned(),
    };
    vec![
        (
            "frozen",
            format!("{frozen} of {} blocks", row.blocks.len()).into(),
        ),
        ("trains", trains.into()),
        ("cached", cut.into()),
    ]
}
