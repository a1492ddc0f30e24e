//! The daemon's error: what dockerd would say, and the class that decides the HTTP status.

/// Class of an error, as moby's `errdefs` has them; each maps to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 304: the container is already in the wanted state.
    NotModified,
    /// 400
    InvalidParameter,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 500
    System,
    /// 501
    NotImplemented,
    /// 503
    Unavailable,
}

/// An error of the daemon. The message is what the user reads: dockerd's wording where dockerd has one.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the HTTP status.
    pub kind: Kind,
    /// For the user.
    pub message: String,
    /// The cause, for the daemon's log.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of the daemon's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// 400
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// 409
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// 500
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// 304
    #[must_use]
    pub fn not_modified() -> Self {
        Self::new(Kind::NotModified, String::new())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::system(error.to_string()).because(error)
    }
}

impl From<images::Error> for Error {
    fn from(error: images::Error) -> Self {
        let kind = match error.kind() {
            images::ErrorKind::NotFound => Kind::NotFound,
            images::ErrorKind::Conflict => Kind::Conflict,
            images::ErrorKind::InvalidParameter => Kind::InvalidParameter,
            images::ErrorKind::Unauthorized => Kind::Unauthorized,
            images::ErrorKind::System => Kind::System,
        };
        // Its message has its cause in it.
        Self::new(kind, error.to_string())
    }
}
