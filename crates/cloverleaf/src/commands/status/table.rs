//! Columns of text for a terminal. Pure.

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Words; cut where the table is too wide.
    Left,
    /// Numbers; never cut.
    Right,
    /// Counts of what seldom happens: a column without any but 0 is left out.
    Seldom,
    /// Words that not every table has: a column without any is left out.
    Note,
}

/// A title and the cells below it, row by row.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Between columns.
const GAP: &str = "  ";
/// Below this no column is cut.
const COLUMN_CHARS_MIN: usize = 8;

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; control characters are shown, not sent.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().map(|cell| visible(&cell)).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// The table, each line indented by two spaces and ended, at most `width` characters wide if
    /// that is possible.
    pub(super) fn render(&self, width: usize) -> String {
        let shown: Vec<usize> = (0..self.columns.len()).filter(|c| self.is_shown(*c)).collect();
        let widths = self.widths(&shown, width.saturating_sub(GAP.len()));
        let titles: Vec<String> =
            self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let cell = |(column, width): (&usize, &usize)| {
                padded(&row[*column], self.columns[*column].1, *width)
            };
            let cells: Vec<String> = shown.iter().zip(&widths).map(cell).collect();
            text.push_str(GAP);
            text.push_str(cells.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }

    fn is_shown(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| row[column].as_str());
        match self.columns[column].1 {
            Align::Left | Align::Right => true,
            Align::Seldom => cells.any(|cell| !matches!(cell, "" | "0")),
            Align::Note => cells.any(|cell| !cell.is_empty()),
        }
    }

    /// The width of each column shown: as wide as its cells, then the widest column of words
    /// narrower and narrower.
    fn widths(&self, shown: &[usize], width: usize) -> Vec<usize> {
        let chars = |text: &str| text.chars().count();
        let natural = |column: &usize| {
            let cells = self.rows.iter().map(|row| chars(&row[*column]));
            cells.chain([chars(self.columns[*column].0)]).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = shown.iter().map(natural).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width {
            let words = shown.iter().zip(&mut widths);
            let is_words =
                |column: usize| matches!(self.columns[column].1, Align::Left | Align::Note);
            let words = words.filter(|(column, _)| is_words(**column));
            match words.map(|(_, width)| width).max() {
                Some(widest) if *widest > COLUMN_CHARS_MIN => *widest -= 1,
                _ => break,
            }
        }
        widths
    }
}

fn padded(cell: &str, align: Align, width: usize) -> String {
    let cell = match cell.char_indices().nth(width) {
        Some(_) => {
            let cut: String = cell.chars().take(width.saturating_sub(1)).collect();
            format!("{cut}…")
        }
        None => cell.to_owned(),
    };
    match align {
        Align::Left | Align::Note => format!("{cell:<width$}"),
        Align::Right | Align::Seldom => format!("{cell:>width$}"),
    }
}

/// The text with control characters escaped: nothing from elsewhere may move the cursor of a terminal.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("TO", Align::Left)]);
        table.row(["web".to_owned(), "1200".to_owned(), "a\u{1b}[2Jb".to_owned()]);
        table.row(["a-rather-long-name".to_owned(), "7".to_owned()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let expected = "  NAME                   N  TO
  web                 1200  a\\u{1b}[2Jb
  a-rather-long-name     7\n";
        assert_eq!(table().render(usize::MAX), expected);
    }

    #[test]
    fn a_column_of_zeros_is_left_out_if_it_is_seldom_more() {
        for (counts, expected) in [
            (["0", ""], "  A  B\n  x  0\n  y  0\n"),
            (["0", "2"], "  A  FAILED  B\n  x       0  0\n  y       2  0\n"),
        ] {
            let mut table =
                Table::new(&[("A", Align::Left), ("FAILED", Align::Seldom), ("B", Align::Right)]);
            table.row(["x", counts[0], "0"].map(str::to_owned));
            table.row(["y", counts[1], "0"].map(str::to_owned));
            assert_eq!(table.render(usize::MAX), expected);
        }
    }

    #[test]
    fn words_are_cut_where_the_terminal_is_narrow() {
        let expected = "  NAME            N  TO
  web          1200  a\\u{1b}[2…
  a-rather-l…     7\n";
        assert_eq!(table().render(31), expected);
        // Too narrow for anything: as narrow as may be.
        assert!(table().render(0).lines().all(|line| line.chars().count() <= 26));
    }
}
