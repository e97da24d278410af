;; Emacs' smtpmail, after the settings block: sends the message in the file that the variable FILE names.
(setq mail-header-separator "--text follows this line--"
      mail-envelope-from user-mail-address
      mail-specify-envelope-from t
      auth-sources (list (expand-file-name "~/.authinfo"))
      network-security-level 'low
      gnutls-verify-error t
      gnutls-trustfiles '("/etc/ssl/certs/ca-certificates.crt"))
(with-temp-buffer
  (let ((coding-system-for-read 'utf-8-dos))
    (insert-file-contents (getenv "FILE")))
  (goto-char (point-min))
  (re-search-forward "^$")
  (insert mail-header-separator)
  (smtpmail-send-it))
