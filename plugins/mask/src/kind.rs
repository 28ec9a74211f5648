//! What can be found.

/// A kind of finding; a custom pattern is its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Email,
    Phone,
    Card,
    Iban,
    NationalId,
    Ip,
    Jwt,
    Key,
    Secret,
    Custom(u16),
}

impl Kind {
    pub const BUILT_IN: [Kind; 9] = [
        Kind::Email,
        Kind::Phone,
        Kind::Card,
        Kind::Iban,
        Kind::NationalId,
        Kind::Ip,
        Kind::Jwt,
        Kind::Key,
        Kind::Secret,
    ];

    /// As it stands in the configuration and in masked text; a custom pattern has its own name.
    pub fn name(self) -> &'static str {
        self.redacted().map_or("custom", |text| &text[1..text.len() - 1])
    }

    /// Its name in brackets, which stands for one that is redacted; a custom pattern has its own.
    pub(crate) fn redacted(self) -> Option<&'static str> {
        Some(match self {
            Kind::Email => "[email]",
            Kind::Phone => "[phone]",
            Kind::Card => "[card]",
            Kind::Iban => "[iban]",
            Kind::NationalId => "[national_id]",
            Kind::Ip => "[ip]",
            Kind::Jwt => "[jwt]",
            Kind::Key => "[key]",
            Kind::Secret => "[secret]",
            Kind::Custom(_) => return None,
        })
    }

    /// Which kind two findings of the same place are; the smaller wins.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Kind::Custom(_) => 0,
            Kind::Jwt => 1,
            Kind::Key => 2,
            Kind::Iban => 3,
            Kind::Card => 4,
            Kind::NationalId => 5,
            Kind::Email => 6,
            Kind::Ip => 7,
            Kind::Secret => 8,
            Kind::Phone => 9,
        }
    }
}

/// A finding: bytes of the text that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_redacted_has_the_name_of_its_kind() {
        for kind in Kind::BUILT_IN {
            assert_eq!(kind.redacted(), Some(format!("[{}]", kind.name()).as_str()));
        }
    }
}
