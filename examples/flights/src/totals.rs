//! The totals of the file and those of the read model.
//!
//! Those of the file are added up by column, without the types and events of the rest of the demo:
//! a mistake there is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use csv::StringRecord;
use sqlx::PgPool;

use crate::report::grouped;
use crate::rows;

/// A group of flights, such as `carrier UA`, and the name of a sum over it.
pub(crate) type Name = (String, String);
/// All totals of a file, or of the read model.
pub(crate) type Totals = BTreeMap<Name, i64>;

/// Adds up a file of flights.
pub(crate) fn of_file(path: &Path) -> Result<Totals> {
    let mut reader = rows::open(path)?;
    let headers = reader.headers()?.clone();
    let mut totals = Totals::new();
    for record in reader.records() {
        let record = record.with_context(|| format!("read {}", path.display()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let added = add(&mut totals, &Fields { headers: &headers, record: &record });
        added.with_context(|| format!("line {line} of {}", path.display()))?;
    }
    Ok(totals)
}

fn add(totals: &mut Totals, fields: &Fields<'_>) -> Result<()> {
    let has_left = fields.number("dep_time")?.is_some();
    let arrival_delay = fields.number("arr_delay")?;
    let flight = [
        ("flights", 1),
        ("cancelled", i64::from(!has_left)),
        ("departed", i64::from(has_left)),
        ("arrived", i64::from(arrival_delay.is_some())),
        ("minutes of departure delay", fields.number("dep_delay")?.unwrap_or(0)),
        ("minutes of arrival delay", arrival_delay.unwrap_or(0)),
    ];
    let carrier = format!("carrier {}", fields.text("carrier")?);
    let destination = format!("destination {}", fields.text("dest")?);
    add_to(totals, &["all".to_owned(), carrier, destination], &flight);
    let tail_number = fields.text("tailnum")?;
    if arrival_delay.is_some() && !rows::is_unknown(tail_number) {
        let leg = [
            ("legs", 1),
            ("miles", fields.number("distance")?.context("a flight without distance")?),
            ("minutes in the air", fields.number("air_time")?.context("an arrival without it")?),
        ];
        add_to(totals, &["all".to_owned(), format!("aircraft {tail_number}")], &leg);
    }
    Ok(())
}

fn add_to(totals: &mut Totals, groups: &[String], sums: &[(&str, i64)]) {
    for group in groups {
        for (name, amount) in sums {
            *totals.entry((group.clone(), (*name).to_owned())).or_default() += amount;
        }
    }
}

struct Fields<'a> {
    headers: &'a StringRecord,
    record: &'a StringRecord,
}

impl<'a> Fields<'a> {
    fn text(&self, column: &str) -> Result<&'a str> {
        let place = self.headers.iter().position(|header| header == column);
        let place = place.with_context(|| format!("the file has no column {column}"))?;
        self.record.get(place).with_context(|| format!("no field {column}"))
    }

    fn number(&self, column: &str) -> Result<Option<i64>> {
        let text = self.text(column)?;
        let number = (!rows::is_unknown(text)).then(|| text.parse()).transpose();
        number.with_context(|| format!("{column} is {text:?}, which is no number"))
    }
}

/// Reads the totals of the read model.
pub(crate) async fn of_read_model(pool: &PgPool) -> Result<Totals> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as(include_str!("../sql/totals.sql")).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(group, name, total)| ((group, name), total)).collect())
}

/// The totals that are not the same on both sides, or that one side lacks, as sentences.
pub(crate) fn differences(file: &Totals, kafka: &Totals) -> Vec<String> {
    let names: BTreeSet<&Name> = file.keys().chain(kafka.keys()).collect();
    let different = names.into_iter().filter(|name| file.get(name) != kafka.get(name));
    let shown = |total: Option<&i64>| total.copied().map_or_else(|| "none".to_owned(), grouped);
    let sentence = |name: &Name| {
        let (file, kafka) = (shown(file.get(name)), shown(kafka.get(name)));
        format!("{} of {}: {file} in the file, {kafka} out of Kafka", name.1, name.0)
    };
    different.map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(totals: &Totals, of: &str) -> usize {
        totals.keys().filter(|(group, _)| group.starts_with(of)).count()
    }

    #[test]
    fn the_month_adds_up_to_what_other_tools_count() {
        // Counted by awk over the same file.
        let totals = of_file(&rows::month()).unwrap();
        let overall = |name: &str| totals[&("all".to_owned(), name.to_owned())];
        assert_eq!(["flights", "cancelled", "arrived"].map(overall), [27_004, 521, 26_398]);
        let of = ["carrier ", "destination ", "aircraft "].map(|of| groups(&totals, of));
        assert_eq!(of, [16 * 6, 94 * 6, 3_140 * 3]);
        let delays = ["minutes of departure delay", "minutes of arrival delay"];
        assert_eq!(delays.map(overall), [265_801, 161_819]);
        let flown = ["legs", "miles", "minutes in the air"];
        assert_eq!(flown.map(overall), [26_398, 26_755_517, 4_070_239]);
    }

    #[test]
    fn file_without_the_columns_is_refused_by_name() {
        let headers = StringRecord::from(vec!["dep_time", "dep_delay"]);
        let fields = Fields { headers: &headers, record: &headers };
        let refused = fields.text("arr_delay").unwrap_err().to_string();
        assert_eq!(refused, "the file has no column arr_delay");
    }

    fn totals(of: &[(&str, &str, i64)]) -> Totals {
        of.iter()
            .map(|(group, name, total)| ((group.to_string(), name.to_string()), *total))
            .collect()
    }

    #[test]
    fn equal_totals_have_no_difference_and_each_other_one_is_named() {
        let file = totals(&[("all", "flights", 3), ("carrier UA", "cancelled", 1)]);
        assert_eq!(differences(&file, &file), Vec::<String>::new());
        let kafka = totals(&[("all", "flights", 2), ("aircraft N1", "miles", 1_400)]);
        assert_eq!(
            differences(&file, &kafka),
            [
                "miles of aircraft N1: none in the file, 1,400 out of Kafka",
                "flights of all: 3 in the file, 2 out of Kafka",
                "cancelled of carrier UA: 1 in the file, none out of Kafka",
            ]
        );
    }
}
