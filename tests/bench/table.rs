//! The results: a row for each number, a column for each contestant, and how postkey compares.

use std::fmt;

/// The columns that ratios compare, and their titles.
const RATIOS: [(&str, &str); 2] = [("HAProxy", "pk/HAProxy"), ("direct", "pk/direct")];

/// The numbers so far.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

/// One kind of number: the results of every round, for each column.
struct Row {
    name: String,
    unit: &'static str,
    cells: Vec<Vec<f64>>,
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = &'static str>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Records a number. Rows are in the order in which their names first came.
    pub fn add(&mut self, name: &str, unit: &'static str, column: &str, value: f64) {
        let known = self.rows.iter().position(|row| row.name == name && row.unit == unit);
        let row = known.unwrap_or_else(|| {
            let place = self.rows.iter().rposition(|row| row.name == name).map_or(self.rows.len(), |last| last + 1);
            self.rows.insert(place, Row { name: name.to_owned(), unit, cells: vec![Vec::new(); self.columns.len()] });
            place
        });
        if let Some(column) = self.columns.iter().position(|known| *known == column) {
            self.rows[row].cells[column].push(value);
        }
    }

    /// The median of the results for `column`.
    fn median(&self, row: &Row, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|known| *known == column)?;
        let mut found = row.cells[column].clone();
        found.sort_by(f64::total_cmp);
        found.get(found.len() / 2).copied()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30}{:<24}", "", "")?;
        self.columns.iter().try_for_each(|column| write!(f, "{column:>10}"))?;
        RATIOS.iter().try_for_each(|(_, title)| write!(f, "{title:>12}"))?;
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<30}{:<24}", row.name, row.unit)?;
            for column in &self.columns {
                write!(f, "{:>10}", shown(self.median(row, column)))?;
            }
            let postkey = self.median(row, "postkey");
            for (other, _) in RATIOS {
                let ratio = postkey.zip(self.median(row, other)).map(|(postkey, other)| postkey / other);
                write!(f, "{:>12}", shown(ratio))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three significant digits, or a dash.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if !value.is_finite() => "-".to_owned(),
        Some(value) if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
