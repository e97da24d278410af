//! The grants that a user can choose.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::words;

/// How an account gets its tokens. Serialized as its [`Flow::name`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// A person consents in a browser (RFC 6749 section 4.1).
    #[default]
    AuthorizationCode,
    /// A person consents in a browser on another device, and types a code there (RFC 8628).
    DeviceCode,
    /// An administrator has given the client access to mailboxes (RFC 6749 section 4.4).
    ClientCredentials,
    /// An administrator has allowed a key to act for the owners of mailboxes (RFC 7523 section 2.1).
    JwtBearer,
    /// The mailbox's own password is sent to the authorization server (RFC 6749 section 4.3).
    Password,
}

impl Flow {
    pub const ALL: [Self; 5] =
        [Self::AuthorizationCode, Self::DeviceCode, Self::ClientCredentials, Self::JwtBearer, Self::Password];

    /// The name in the configuration and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization-code",
            Self::DeviceCode => "device-code",
            Self::ClientCredentials => "client-credentials",
            Self::JwtBearer => "jwt-bearer",
            Self::Password => "password",
        }
    }
}

impl FromStr for Flow {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let refusal = || format!("must be {}", words::listing(&Self::ALL.map(Self::name), "or"));
        Self::ALL.into_iter().find(|flow| flow.name() == name).ok_or_else(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_one_name_everywhere() {
        for flow in Flow::ALL {
            assert_eq!(flow.name().parse(), Ok(flow));
            assert_eq!(serde_json::to_value(flow).unwrap(), flow.name());
        }
        assert!("implicit".parse::<Flow>().is_err());
    }
}
