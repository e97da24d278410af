//! Microsoft's authorization server has an issuer for each tenant:
//! <https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-issuer>.

use url::Url;

/// The tenant of all personal accounts, which the endpoints call `consumers`.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// The tenant, or the kind of tenants, of an endpoint.
pub struct Tenant<'a> {
    server: String,
    name: &'a str,
}

impl<'a> Tenant<'a> {
    /// None if the token endpoint does not have Microsoft's form.
    pub fn of(token_endpoint: &'a Url) -> Option<Self> {
        let name = token_endpoint.path().strip_suffix("/oauth2/v2.0/token")?.strip_prefix('/')?;
        let server = token_endpoint.origin().ascii_serialization();
        (!name.is_empty() && !name.contains('/')).then_some(Self { server, name })
    }

    /// Whether one organization decides who signs in, and with which names.
    pub fn is_one(&self) -> bool {
        !["common", "organizations", "consumers"].contains(&self.name)
    }

    /// Whether this is the same server, and an account that was authorized at `other` is known here. `common` says nothing
    /// about the account.
    pub fn may_know(&self, other: &Self) -> bool {
        self.server == other.server && (self.name.eq_ignore_ascii_case(other.name) || other.name == "common")
    }

    /// A tenant's name, or that of a kind of tenants.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether an id_token with this `iss`, and this `tid` if it has one, comes from here.
    pub fn has_issued(&self, issuer: &str, tid: Option<&str>) -> bool {
        let rest = issuer.strip_prefix(&self.server).and_then(|rest| rest.strip_prefix('/'));
        let Some(tenant) = rest.and_then(|rest| rest.strip_suffix("/v2.0")) else { return false };
        let is_expected = match self.name {
            "common" | "organizations" => true,
            "consumers" => tenant == CONSUMERS,
            // An endpoint can name the tenant by one of its domains, but an issuer cannot.
            name => !is_id(name) || name.eq_ignore_ascii_case(tenant),
        };
        is_id(tenant) && is_expected && tid.is_none_or(|tid| tid == tenant)
    }
}

/// RFC 9562 section 4.
fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a000000-0000-0000-0000-00000000000b";
    const OTHER: &str = "0a000000-0000-0000-0000-00000000000c";

    fn has_issued(tenant: &str, issuer: &str, tid: Option<&str>) -> bool {
        let endpoint = Url::parse(&format!("https://login.example.test/{tenant}/oauth2/v2.0/token")).unwrap();
        Tenant::of(&endpoint).unwrap().has_issued(issuer, tid)
    }

    #[test]
    fn a_tenants_id_token_names_the_tenant_in_its_issuer() {
        let issuer = |tenant: &str| format!("https://login.example.test/{tenant}/v2.0");
        for tenant in ["organizations", "common", ID, "0A000000-0000-0000-0000-00000000000B", "contoso.example"] {
            assert!(has_issued(tenant, &issuer(ID), Some(ID)), "{tenant}");
            assert!(has_issued(tenant, &issuer(ID), None), "{tenant}: without the scope profile");
            assert!(!has_issued(tenant, &issuer(ID), Some(OTHER)), "{tenant}");
            for wrong in ["organizations", "", "x", "0a000000/0000-0000-0000-00000000000b"] {
                assert!(!has_issued(tenant, &issuer(wrong), None), "{tenant} {wrong}");
            }
            for other in ["https://evil.test/ID/v2.0", "https://login.example.test.evil.test/ID/v2.0", "ID"] {
                assert!(!has_issued(tenant, &other.replace("ID", ID), Some(ID)), "{tenant} {other}");
            }
        }
        assert!(!has_issued(ID, &issuer(OTHER), Some(OTHER)));
        assert!(has_issued("consumers", &issuer(CONSUMERS), Some(CONSUMERS)));
        assert!(!has_issued("consumers", &issuer(ID), Some(ID)));
    }

    #[test]
    fn other_servers_have_no_tenants() {
        for endpoint in [
            "https://login.example.test/token",
            "https://login.example.test/oauth2/v2.0/token",
            "https://login.example.test/a/b/oauth2/v2.0/token",
        ] {
            assert!(Tenant::of(&Url::parse(endpoint).unwrap()).is_none(), "{endpoint}");
        }
    }
}
