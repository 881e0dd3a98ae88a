//! What a client gets when its request is served.

use serde_json::Value;

/// Status, `Location` and JSON body of a success.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status: 200, 201 or 204.
    pub status: u16,
    /// The new thing's URL.
    pub location: Option<String>,
    /// The body; none with 204.
    pub body: Option<Value>,
    /// Something that the client's people should know.
    pub notice: Option<&'static str>,
    /// Members' signatures over it, for a client that asked: [`crate::receipt`].
    pub receipt: Option<String>,
}

impl Reply {
    /// 200 with a body.
    pub fn ok(body: Value) -> Self {
        Self {
            status: 200,
            location: None,
            body: Some(body),
            notice: None,
            receipt: None,
        }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self {
            status: 204,
            location: None,
            body: None,
            notice: None,
            receipt: None,
        }
    }

    /// With a `Location`.
    pub fn located(mut self, url: String) -> Self {
        self.location = Some(url);
        self
    }

    /// With a notice.
    pub fn noticed(mut self, notice: Option<&'static str>) -> Self {
        self.notice = notice;
        self
    }

    /// With another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}
