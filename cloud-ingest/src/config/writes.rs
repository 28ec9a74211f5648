//! Which partitions of a shared log the writers of one process write.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `all`, `group`, or partitions and ranges of them such as `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Writes {
    #[default]
    All,
    /// Those that the group of all processes of a role gives to this one.
    Group,
    These(BTreeSet<u16>),
}

impl FromStr for Writes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not all, group, or partitions such as 0-3,7");
        match text.trim() {
            "all" => Ok(Writes::All),
            "group" => Ok(Writes::Group),
            list => {
                let mut these = BTreeSet::new();
                for part in list.split(',').map(str::trim) {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
                    let (first, last) = (number(first)?, number(last)?);
                    if last < first {
                        return Err(wrong());
                    }
                    these.extend(first..=last);
                }
                Ok(Writes::These(these))
            }
        }
    }
}

impl TryFrom<String> for Writes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Writes> for String {
    fn from(writes: Writes) -> String {
        writes.to_string()
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writes::All => f.write_str("all"),
            Writes::Group => f.write_str("group"),
            Writes::These(these) => {
                let list: Vec<_> = these.iter().map(ToString::to_string).collect();
                f.write_str(&list.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_as_it_was_shown() {
        let these = |list: &[u16]| Ok(Writes::These(list.iter().copied().collect()));
        for (text, wanted) in [
            ("all", Ok(Writes::All)),
            (" group ", Ok(Writes::Group)),
            ("0-3,7", these(&[0, 1, 2, 3, 7])),
            ("5", these(&[5])),
        ] {
            let read: Result<Writes, String> = text.parse();
            assert_eq!(read, wanted);
            assert_eq!(read.map(|writes| writes.to_string().parse()), wanted.map(Ok), "{text}");
        }
        for text in ["", "3-1", "a", "1,,2", "70000", "-1"] {
            assert!(text.parse::<Writes>().is_err(), "{text}");
        }
    }
}
