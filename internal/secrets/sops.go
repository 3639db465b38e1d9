package secrets

import (
	"errors"
	"fmt"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/cmd/sops/common"
	sopsconfig "github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/decrypt"
	"github.com/getsops/sops/v3/keyservice"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
	"github.com/getsops/sops/v3/version"

	"github.com/k3lab/k3lab/internal/fault"
)

// decryptYAML decrypts and checks the file's integrity. What SOPS says on failure
// is long and may quote parts of the file, so the message is ours.
func decryptYAML(cipher []byte, ids identities) ([]byte, error) {
	store := sopsyaml.NewStore(&sopsconfig.YAMLStoreConfig{})
	tree, err := store.LoadEncryptedFile(cipher)
	if err != nil {
		return nil, fault.New(fault.Invalid, FileName, "git checkout "+FileName, "it is no file that sops has encrypted")
	}
	if _, err := tree.Metadata.GetDataKey(); err != nil {
		cause := fmt.Errorf("none of your age keys (%s) can decrypt it", ids.file)
		if len(ids.list) == 0 {
			cause = fmt.Errorf("there is no age key in %s", ids.file)
		}
		if ids.err != nil {
			cause = ids.err
		}
		return nil, fault.New(fault.Invalid, FileName, "copy the key file from the computer that has it", "%w", cause)
	}
	plain, err := decrypt.Data(cipher, "yaml")
	if err != nil {
		return nil, fault.New(fault.Invalid, FileName, "git checkout "+FileName, "it was changed by something that is not sops: its checksum does not match")
	}
	return plain, nil
}

func encryptYAML(plain []byte, recipients string) ([]byte, error) {
	store := sopsyaml.NewStore(&sopsconfig.YAMLStoreConfig{Indent: 2})
	branches, err := store.LoadPlainFile(plain)
	if err != nil {
		return nil, errors.New("secrets: they cannot be read as YAML")
	}
	keys, err := sopsage.MasterKeysFromRecipients(recipients)
	if err != nil {
		return nil, fmt.Errorf("secrets: age recipients: %w", err)
	}
	var group sops.KeyGroup
	for _, k := range keys {
		group = append(group, k)
	}
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		KeyGroups: []sops.KeyGroup{group}, Version: version.Version, LastModified: time.Now().UTC(),
		UnencryptedSuffix: sops.DefaultUnencryptedSuffix,
	}}
	dataKey, errs := tree.GenerateDataKeyWithKeyServices([]keyservice.KeyServiceClient{keyservice.NewLocalClient()})
	if len(errs) > 0 {
		return nil, fmt.Errorf("secrets: data key: %w", errors.Join(errs...))
	}
	if err := common.EncryptTree(common.EncryptTreeOpts{DataKey: dataKey, Tree: &tree, Cipher: aes.NewCipher()}); err != nil {
		return nil, fmt.Errorf("secrets: encrypt: %w", err)
	}
	cipher, err := store.EmitEncryptedFile(tree)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return cipher, nil
}
