//! Which formats a build speaks. What a format means is the application's; here they are stated and compared.

/// A number for everything that nodes say to each other; each is the one before with changes. Never 0.
pub type Format = u8;

/// The formats that a build speaks: all from the lowest to the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Formats {
    lowest: Format,
    highest: Format,
}

impl Formats {
    /// All of them; `None` for no format, or 0.
    pub const fn new(lowest: Format, highest: Format) -> Option<Self> {
        if lowest == 0 || lowest > highest {
            return None;
        }
        Some(Self { lowest, highest })
    }

    /// One only; 0 counts as 1.
    pub const fn only(format: Format) -> Self {
        let format = if format == 0 { 1 } else { format };
        Self {
            lowest: format,
            highest: format,
        }
    }

    /// The oldest.
    pub const fn lowest(self) -> Format {
        self.lowest
    }

    /// The newest.
    pub const fn highest(self) -> Format {
        self.highest
    }

    /// Whether this one is spoken.
    pub const fn has(self, format: Format) -> bool {
        self.lowest <= format && format <= self.highest
    }

    /// The newest that both speak.
    pub const fn common(self, other: Self) -> Option<Format> {
        let newest = if self.highest < other.highest {
            self.highest
        } else {
            other.highest
        };
        if self.has(newest) && other.has(newest) {
            Some(newest)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Formats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lowest == self.highest {
            true => write!(f, "format {}", self.highest),
            false => write!(f, "formats {} to {}", self.lowest, self.highest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_a_format_in_common_and_others_have_none() {
        let formats = |lowest, highest| Formats::new(lowest, highest).unwrap();
        assert_eq!(formats(1, 2).common(formats(2, 3)), Some(2));
        assert_eq!(formats(2, 3).common(formats(1, 2)), Some(2));
        assert_eq!(formats(1, 4).common(formats(2, 3)), Some(3));
        assert_eq!(formats(1, 2).common(formats(3, 4)), None);
        assert_eq!(formats(3, 4).common(formats(1, 2)), None);
        assert_eq!((Formats::new(0, 1), Formats::new(3, 2)), (None, None));
    }
}
