//! Structure out of any bytes: numbers and chunks, zero or empty when the bytes have run out.

/// The bytes that a target has not looked at yet.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next number, two bytes, little endian.
    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// So many bytes, zeros after the end.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// A length and as many bytes, or what there is.
    pub(crate) fn chunk(&mut self) -> &'a [u8] {
        let length = self.short();
        self.take(length.into())
    }

    /// A chunk as text; other bytes than UTF-8 are replaced.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.chunk()).into_owned()
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The other way: seeds are written as they are read.
#[derive(Default)]
pub(crate) struct Output(pub(crate) Vec<u8>);

impl Output {
    /// A byte.
    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Two bytes.
    pub(crate) fn short(self, number: u16) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// These bytes and nothing before them.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A length and these bytes; seeds are shorter than a chunk may be.
    pub(crate) fn chunk(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.short(length).bytes(&bytes[..usize::from(length)])
    }
}
