//! Tables and cards: rows in, text out. Two spaces between columns, no lines.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table, Width,
};

use crate::printer::Style;

/// How a cell is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Steps back.
    Dim,
    /// Stands out.
    Bold,
    /// Good.
    Good,
    /// Under way.
    Busy,
    /// Wants attention.
    Warn,
    /// Bad.
    Bad,
}

/// A cell: text and tone.
#[derive(Debug, Clone)]
pub struct Text {
    text: String,
    tone: Tone,
}

impl<T: ToString> From<T> for Text {
    fn from(text: T) -> Self {
        Self {
            text: harmless(text.to_string()),
            tone: Tone::Plain,
        }
    }
}

/// A cell with a tone.
#[expect(clippy::needless_pass_by_value, reason = "callers hand in fresh texts")]
pub fn toned(text: impl ToString, tone: Tone) -> Text {
    Text {
        text: harmless(text.to_string()),
        tone,
    }
}

/// Names of files and classes come from anybody: what would steer a terminal is written out.
fn harmless(text: String) -> String {
    let steers = |letter: char| letter.is_control() && letter != '\n';
    if !text.contains(steers) {
        return text;
    }
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if steers(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// A table that is being made.
#[derive(Debug)]
pub struct Grid {
    style: Style,
    columns: Vec<Column>,
    rows: Vec<Vec<Text>>,
}

#[derive(Debug)]
struct Column {
    title: String,
    /// Numbers stand at the right.
    right: bool,
    /// May be left out of a narrow terminal.
    optional: bool,
}

/// Blanks between two columns.
const GAP: usize = 2;

impl Grid {
    /// A table with these column titles. A title that begins with `>` aligns its column right; one
    /// that begins with `?` may be left out where there is no room for it, the last one first.
    pub fn new(style: Style, titles: &[&str]) -> Self {
        let columns = titles
            .iter()
            .map(|title| {
                let optional = title.starts_with('?');
                let title = title.trim_start_matches('?');
                Column {
                    right: title.starts_with('>'),
                    title: title.trim_start_matches('>').to_uppercase(),
                    optional,
                }
            })
            .collect();
        Self {
            style,
            columns,
            rows: Vec::new(),
        }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Text>) {
        self.rows.push(cells);
    }

    /// The text.
    pub fn render(mut self) -> String {
        self.make_room();
        let mut table = blank(self.style);
        let header = self.columns.iter().map(|column| {
            let cell = Cell::new(&column.title);
            cell.add_attribute(Attribute::Dim)
        });
        table.set_header(Row::from(header.collect::<Vec<_>>()));
        for (index, column) in self.columns.iter().enumerate() {
            if column.right
                && let Some(column) = table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &self.rows {
            table.add_row(Row::from(row.iter().map(draw).collect::<Vec<_>>()));
        }
        tidy(&mut table)
    }

    /// Long titles are broken, then columns are left out, until the rows fit in their lines.
    fn make_room(&mut self) {
        let width = usize::from(self.style.width);
        if self.width() > width {
            for column in &mut self.columns {
                column.title = match column.title.split_once('/') {
                    Some((kind, name)) => format!("{kind}/\n{}", name.replace('_', " ")),
                    None => column.title.replace('_', "\n"),
                };
            }
        }
        while self.width() > width {
            let Some(index) = self.columns.iter().rposition(|column| column.optional) else {
                return;
            };
            self.columns.remove(index);
            for row in &mut self.rows {
                row.remove(index);
            }
        }
    }

    /// Columns of text that it takes when nothing is broken.
    fn width(&self) -> usize {
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max();
        let of = |index: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| widest(&row.get(index)?.text));
            cells
                .chain(widest(&self.columns[index].title))
                .max()
                .unwrap_or(0)
        };
        let gaps = GAP * self.columns.len().saturating_sub(1);
        gaps + (0..self.columns.len()).map(of).sum::<usize>()
    }
}

/// Pairs of a name and a text, one a line.
pub fn card(style: Style, pairs: Vec<(&str, Text)>) -> String {
    let mut table = blank(style);
    for (name, text) in pairs {
        let name = Cell::new(name).add_attribute(Attribute::Dim);
        table.add_row(Row::from(vec![name, draw(&text)]));
    }
    tidy(&mut table)
}

/// A paragraph.
pub fn paragraph(style: Style, text: &str) -> String {
    let mut table = blank(style);
    table.add_row(Row::from(vec![Cell::new(text)]));
    tidy(&mut table)
}

fn blank(style: Style) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(style.width);
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.style_text_only();
    table
}

/// Columns stand two apart, words (and ids) are whole, lines do not end in blanks.
fn tidy(table: &mut Table) -> String {
    let widths: Vec<ColumnConstraint> = (0..table.column_count())
        .map(|index| narrowest(table, index))
        .collect();
    for (index, (column, width)) in table.column_iter_mut().zip(widths).enumerate() {
        column.set_padding((if index == 0 { 0 } else { GAP as u16 }, 0));
        column.set_constraint(width);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

/// A column is as wide as its longest word at least, even where the terminal is too narrow for it:
/// an id that is broken cannot be handed back.
fn narrowest(table: &Table, index: usize) -> ColumnConstraint {
    let header = table.header().and_then(|row| row.cell_iter().nth(index));
    let rows = table
        .row_iter()
        .filter_map(|row| row.cell_iter().nth(index));
    let texts: Vec<String> = header.into_iter().chain(rows).map(Cell::content).collect();
    if texts.iter().all(|text| !text.contains(' ')) {
        return ColumnConstraint::ContentWidth;
    }
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
    let gap = if index == 0 { 0 } else { GAP };
    let width = u16::try_from(longest + gap).unwrap_or(u16::MAX);
    ColumnConstraint::LowerBoundary(Width::Fixed(width))
}

fn draw(text: &Text) -> Cell {
    let cell = Cell::new(&text.text);
    match text.tone {
        Tone::Plain => cell,
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Bold => cell.add_attribute(Attribute::Bold),
        Tone::Good => cell.fg(Color::Green),
        Tone::Busy => cell.fg(Color::Cyan),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: u16) -> String {
        let style = Style {
            color: false,
            width,
        };
        let mut grid = Grid::new(
            style,
            &["name", ">val/macro_f1", "?epoch", "state", "?time"],
        );
        grid.row(vec![
            "tux".into(),
            0.5.into(),
            3.into(),
            "completed".into(),
            "12.4 s".into(),
        ]);
        grid.render()
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let Text { text, .. } = Text::from("red\u{1b}[31m évil");
        assert_eq!(text, "red\\u{1b}[31m évil");
    }

    #[test]
    fn what_fits_stands_in_one_line() {
        assert_eq!(
            drawn(80),
            "NAME  VAL/MACRO_F1  EPOCH  STATE      TIME\ntux            0.5  3      completed  12.4 s\n"
        );
    }

    #[test]
    fn long_titles_are_broken_before_columns_are_left_out_from_the_right() {
        assert!(drawn(40).contains("TIME"), "{}", drawn(40));
        assert!(
            drawn(40).starts_with("NAME      VAL/  EPOCH"),
            "{}",
            drawn(40)
        );
        let narrow = drawn(32);
        assert!(
            narrow.contains("EPOCH") && !narrow.contains("TIME"),
            "{narrow}"
        );
        let narrower = drawn(26);
        assert!(
            !narrower.contains("EPOCH") && narrower.contains("completed"),
            "{narrower}"
        );
    }

    #[test]
    fn colour_takes_no_room() {
        let style = Style {
            color: true,
            width: 40,
        };
        let text = card(style, vec![("state", toned("completed", Tone::Good))]);
        assert!(text.contains("\u{1b}["), "{text:?}");
    }
}
