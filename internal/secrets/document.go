package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/cmd/sops/common"
	sopsconfig "github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keyservice"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
	"github.com/getsops/sops/v3/version"

	"github.com/k3lab/k3lab/internal/fault"
)

// indent is the file's indentation, which ruleText makes sops's too.
const indent = 2

// document is the decrypted secrets file: its values and comments, whom it is
// encrypted for and the data key. Encoding it again changes only what was set,
// so that git shows just that.
type document struct {
	tree    sops.Tree
	dataKey []byte
	cipher  aes.Cipher // remembers how each value was encrypted
	known   []string   // keys whose values stand in the file unencrypted
}

func yamlStore() *sopsyaml.Store {
	return sopsyaml.NewStore(&sopsconfig.YAMLStoreConfig{Indent: indent})
}

func keyServices() []keyservice.KeyServiceClient {
	return []keyservice.KeyServiceClient{keyservice.NewLocalClient()}
}

// decode decrypts the file and checks its integrity. What SOPS says on failure
// is long and may quote parts of the file, so the message is ours.
func decode(text []byte, ids identities) (*document, error) {
	const undo = "git checkout " + FileName
	tree, err := yamlStore().LoadEncryptedFile(text)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, fault.New(fault.Invalid, FileName, undo, "it is empty")
	case bytes.HasPrefix(text, []byte("<<<<<<< ")) || bytes.Contains(text, []byte("\n<<<<<<< ")):
		return nil, fault.New(fault.Invalid, FileName, "git checkout --theirs "+FileName+", then set your own secrets again", "it has the marks of a merge conflict")
	case errors.Is(err, sops.MetadataNotFound):
		return nil, fault.New(fault.Invalid, FileName, "sops encrypt --in-place "+FileName, "it is not encrypted")
	case err != nil || len(tree.Branches) != 1:
		return nil, fault.New(fault.Invalid, FileName, undo, "it is no file that sops has encrypted")
	}
	d := &document{tree: tree, cipher: aes.NewCipher()}
	d.known = d.plain()
	if _, err := tree.Metadata.GetDataKeyWithKeyServices(keyServices(), sops.DefaultDecryptionOrder); err != nil {
		return nil, fault.New(fault.Invalid, FileName, "copy the key file from the computer that has it", "%w", ids.why())
	}
	d.dataKey, err = common.DecryptTree(common.DecryptTreeOpts{
		Tree: &d.tree, Cipher: d.cipher, KeyServices: keyServices(), DecryptionOrder: sops.DefaultDecryptionOrder,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, FileName, undo, "it was changed by something that is not sops: its checksum does not match")
	}
	return d, nil
}

// why says why none of the user's keys can decrypt the file.
func (ids identities) why() error {
	switch {
	case ids.err != nil:
		return ids.err
	case len(ids.recipients) == 0 && !ids.other:
		return fmt.Errorf("there is no age key in %s", ids.file)
	}
	return fmt.Errorf("none of your age keys (%s) can decrypt it", ids.file)
}

// newDocument is an empty file for the recipients of the creation rule in dir,
// or, where there is none, for the user's own keys.
func newDocument(dir string, ids identities) (*document, error) {
	meta, err := ruleIn(dir)
	if err != nil {
		return nil, err
	}
	if meta.KeyGroups == nil {
		keys, err := sopsage.MasterKeysFromRecipients(strings.Join(ids.recipients, ","))
		if err != nil {
			return nil, fmt.Errorf("secrets: age recipients: %w", err)
		}
		var group sops.KeyGroup
		for _, k := range keys {
			group = append(group, k)
		}
		meta = sops.Metadata{KeyGroups: []sops.KeyGroup{group}, UnencryptedSuffix: sops.DefaultUnencryptedSuffix}
	}
	meta.Version = version.Version
	d := &document{tree: sops.Tree{Branches: sops.TreeBranches{{}}, Metadata: meta}, cipher: aes.NewCipher()}
	var errs []error
	if d.dataKey, errs = d.tree.GenerateDataKeyWithKeyServices(keyServices()); len(errs) > 0 {
		return nil, fmt.Errorf("secrets: data key: %w", errors.Join(errs...))
	}
	d.tree.Metadata.DataKey = nil // so that it is decrypted
	if _, err := d.tree.Metadata.GetDataKeyWithKeyServices(keyServices(), sops.DefaultDecryptionOrder); err != nil {
		return nil, fault.New(fault.Invalid, ruleFileName, "add your age public key there", "what is encrypted for its recipients you could not read: %w", ids.why())
	}
	return d, nil
}

// ruleIn is the metadata a new file in dir has by its .sops.yaml; without key
// groups where there is no such file.
func ruleIn(dir string) (sops.Metadata, error) {
	path := filepath.Join(dir, ruleFileName)
	if _, err := os.Stat(path); err != nil {
		return sops.Metadata{}, nil //nolint:nilerr // then there is no rule
	}
	absolute, err := filepath.Abs(filepath.Join(dir, FileName))
	if err != nil {
		return sops.Metadata{}, fmt.Errorf("secrets: %w", err)
	}
	rule, err := sopsconfig.LoadCreationRuleForFile(path, absolute, nil)
	if err != nil || rule == nil {
		return sops.Metadata{}, fault.New(fault.Invalid, ruleFileName, "a rule with path_regex: "+pathPattern, "it has no rule that %s can be written by", FileName)
	}
	meta := sops.Metadata{
		KeyGroups: rule.KeyGroups, ShamirThreshold: rule.ShamirThreshold, MACOnlyEncrypted: rule.MACOnlyEncrypted,
		UnencryptedSuffix: rule.UnencryptedSuffix, EncryptedSuffix: rule.EncryptedSuffix,
		UnencryptedRegex: rule.UnencryptedRegex, EncryptedRegex: rule.EncryptedRegex,
		UnencryptedCommentRegex: rule.UnencryptedCommentRegex, EncryptedCommentRegex: rule.EncryptedCommentRegex,
	}
	if rule.UnencryptedSuffix+rule.EncryptedSuffix+rule.UnencryptedRegex+rule.EncryptedRegex+
		rule.UnencryptedCommentRegex+rule.EncryptedCommentRegex == "" {
		meta.UnencryptedSuffix = sops.DefaultUnencryptedSuffix
	}
	return meta, nil
}

// get returns what is under a path of keys; false where nothing is.
func (d *document) get(path []string) (any, bool) {
	var at any = d.tree.Branches[0]
	for _, key := range path {
		branch, ok := at.(sops.TreeBranch)
		if !ok {
			return nil, false
		}
		found := false
		for _, item := range branch {
			if item.Key == key {
				at, found = item.Value, true
			}
		}
		if !found {
			return nil, false
		}
	}
	return at, at != nil
}

// set puts a text under a path of keys. A value on the way is never replaced by
// a map, nor a map by a text.
func (d *document) set(path []string, text string) error {
	for i := range path {
		at, there := d.get(path[:i+1])
		if _, isMap := at.(sops.TreeBranch); there && isMap != (i < len(path)-1) {
			what := "a value, which has no keys"
			if isMap {
				what = "a map of keys, not one value"
			}
			return fault.New(fault.Invalid, FileName, "another name", "%s: %s is %s", strings.Join(path, "."), strings.Join(path[:i+1], "."), what)
		}
	}
	keys := make([]any, len(path))
	for i, key := range path {
		keys[i] = key
	}
	d.tree.Branches[0], _ = d.tree.Branches[0].Set(keys, text)
	return nil
}

// encrypt encrypts the document, which cannot be used after that but for plain.
func (d *document) encrypt() ([]byte, error) {
	if err := common.EncryptTree(common.EncryptTreeOpts{DataKey: d.dataKey, Tree: &d.tree, Cipher: d.cipher}); err != nil {
		return nil, errors.New("secrets: they cannot be encrypted")
	}
	text, err := yamlStore().EmitEncryptedFile(d.tree)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return text, nil
}

// plain lists the keys whose values are not encrypted.
func (d *document) plain() []string {
	var out []string
	leaves(d.tree.Branches[0], nil, func(path []string, v any) {
		if v != "" && !strings.HasPrefix(fmt.Sprint(v), "ENC[") {
			out = append(out, strings.Join(path, "."))
		}
	})
	return out
}

// recipients are the age public keys the document is encrypted for.
func (d *document) recipients() []string {
	var out []string
	for _, group := range d.tree.Metadata.KeyGroups {
		for _, key := range group {
			if k, ok := key.(*sopsage.MasterKey); ok {
				out = append(out, k.Recipient)
			}
		}
	}
	return out
}
