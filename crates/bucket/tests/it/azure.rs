//! Azure Blob, judged by Azurite.

use firebrick_store::{ObjectError, Objects as _};
use firebrick_testkit::stores::{self, AZURE_ACCOUNT};

use crate::contract;
use crate::support::{open, with};

#[test]
fn an_azure_container_keeps_the_contract() {
    let Some(store) = stores::azurite().unwrap() else {
        return;
    };
    let bucket = open("az://fbtest/some/prefix", store.variables());
    contract::check(&bucket);
    contract::race(&bucket, 4);
    contract::files(&bucket, 20 << 20);

    let missing = open("az://no-such-box", store.variables());
    for error in [
        missing.put("k", b"x".to_vec()).unwrap_err(),
        missing.list("").map(|_| ()).unwrap_err(),
        missing.size("k").map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, ObjectError::NoBucket { .. }), "{error:?}");
    }
    let other_key = with(&store.variables(), &[("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")]);
    let error = open("az://fbtest", other_key).put("k", Vec::new()).unwrap_err();
    // Azurite's word is that of a missing permission; Azure itself says `AuthenticationFailed`.
    assert!(
        matches!(
            error,
            ObjectError::Denied { .. } | ObjectError::BadCredentials { .. }
        ),
        "{error:?}"
    );

    // The same by the string that Azure's portal shows, and by an address that names the account.
    let [account, key] = AZURE_ACCOUNT;
    let endpoint = format!("http://{}/{account}", store.host());
    let string = format!("AccountName={account};AccountKey={key};BlobEndpoint={endpoint}");
    let variables = [("AZURE_STORAGE_CONNECTION_STRING".to_owned(), string)];
    for address in [
        "az://fbtest/some/prefix",
        "abfss://fbtest@devstoreaccount1.dfs.core.windows.net/some/prefix",
    ] {
        let bucket = open(address, variables.to_vec());
        assert_eq!(bucket.size("c/one").unwrap(), Some(6), "{address}");
    }
}
