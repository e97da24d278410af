// PHPMailer, behind the settings block: sends the body in the file.
$mail->setFrom(getenv('LOGIN'));
$mail->addAddress(getenv('LOGIN'));
$mail->CharSet = 'utf-8';
$mail->Encoding = '8bit';
$mail->Subject = 'from PHPMailer';
$mail->Body = file_get_contents($argv[1]);
$mail->send();
