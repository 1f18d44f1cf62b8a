//! The rows of the CSV file, one a flight.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One flight of the file; data/README.md describes the columns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Row {
    pub(crate) year: i32,
    pub(crate) month: i32,
    pub(crate) day: i32,
    #[serde(deserialize_with = "known")]
    pub(crate) dep_time: Option<i32>,
    #[serde(deserialize_with = "known")]
    pub(crate) dep_delay: Option<i32>,
    #[serde(deserialize_with = "known")]
    pub(crate) arr_time: Option<i32>,
    #[serde(deserialize_with = "known")]
    pub(crate) arr_delay: Option<i32>,
    pub(crate) carrier: String,
    pub(crate) flight: i32,
    #[serde(deserialize_with = "known")]
    pub(crate) tailnum: Option<String>,
    pub(crate) origin: String,
    pub(crate) dest: String,
    #[serde(deserialize_with = "known")]
    pub(crate) air_time: Option<i32>,
    pub(crate) distance: i32,
    pub(crate) minute: i32,
    pub(crate) time_hour: Timestamp,
}

/// The file that comes with the demo.
pub(crate) fn month() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-2013-01.csv.gz")
}

/// Opens a file of flights, plain or gzip.
pub(crate) fn open(path: &Path) -> Result<csv::Reader<Box<dyn Read>>> {
    let here = || format!("read the flights of {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(here)?);
    let is_gzip = file.fill_buf().with_context(here)?.starts_with(&GZIP);
    Ok(csv::Reader::from_reader(match is_gzip {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    }))
}

/// All rows of a file, each with its line.
pub(crate) fn read(path: &Path) -> Result<Vec<(u64, Row)>> {
    let mut rows = open(path)?.into_deserialize::<Row>();
    let mut read = Vec::new();
    loop {
        let line = rows.reader().position().line();
        let Some(row) = rows.next() else { return Ok(read) };
        read.push((line.max(2), row.with_context(|| format!("read {}", path.display()))?));
    }
}

/// Whether the file has no value here.
pub(crate) fn is_unknown(field: &str) -> bool {
    field.is_empty() || field == "NA"
}

fn known<'de, D, T>(field: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(field)?;
    if is_unknown(&text) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is neither a value nor NA: {error}"))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
        carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

    /// The rows of some lines of CSV.
    pub(crate) fn rows(lines: &str) -> Vec<Row> {
        let text = format!("{HEADER}\n{lines}");
        csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
    }

    #[test]
    fn unknown_fields_are_read_in_both_of_their_forms() {
        let line =
            "2013,1,2,NA,1545,NA,,1910,NA,AA,133,,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z";
        let row = rows(line).remove(0);
        assert_eq!(
            (row.dep_time, row.dep_delay, row.arr_time, row.tailnum),
            (None, None, None, None)
        );
        assert_eq!(row.time_hour.to_string(), "2013-01-02T20:00:00Z");
    }

    #[test]
    fn the_month_is_read_from_gzip_to_its_last_row() {
        let rows = read(&month()).unwrap();
        assert_eq!(rows.len(), 27_004);
    }

    #[test]
    fn a_field_that_is_no_number_is_refused_with_its_line() {
        let text = format!(
            "{HEADER}\n2013,1,1,late,515,2,830,819,11,UA,1545,N1,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
        );
        let read: Result<Row, _> =
            csv::Reader::from_reader(text.as_bytes()).deserialize().next().unwrap();
        let refused = read.unwrap_err().to_string();
        assert!(
            refused.contains("line: 2") && refused.contains("\"late\" is neither"),
            "{refused}"
        );
    }
}
